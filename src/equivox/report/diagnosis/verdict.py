"""The verdict of a diagnosis in words: what is first on its page and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.verdict import BALANCED, IMBALANCED, limit
from equivox.report.diagnosis.hurt import hurt_share
from equivox.report.diagnosis.words import share
from equivox.report.numbers import said_of
from equivox.report.page import Markup, joined, marked, tag
from equivox.report.parts import terms

if TYPE_CHECKING:
    from equivox.diagnosis.diagnose import Diagnosis
    from equivox.diagnosis.prescription import Advice
    from equivox.diagnosis.verdict import Neglect


def headline(found: Diagnosis) -> str:
    """The verdict in a few words.

    The kind and who it is about: the title of the page and the first line in a terminal.
    """
    kind = found.verdict.kind
    if kind == IMBALANCED:
        whom = {"neglected": found.verdict.neglected, "held back": found.verdict.held_back}
        return "Imbalanced: " + ", ".join(_are(who, what) for what, who in whom.items() if who)
    if found.verdict.synergistic:
        return "Synergistic: balancing will not help"
    return "Balanced: nothing to cure" if kind == BALANCED else "Cannot tell who is neglected"


def _are(who: Sequence[str], what: str) -> str:
    *others, last = (f"“{m}”" for m in who)
    return f"{', '.join(others)} and {last} are {what}" if others else f"{last} is {what}"


def verdict(found: Diagnosis) -> Markup:
    """The reasons, how much, how sure, what is to be gained, and what to do first."""
    good = " good" if found.verdict.kind == BALANCED else ""
    facts = {
        "How much": _how_much(found),
        "How sure": _how_sure(found),
        "To be gained": gain(found),
        "First thing to do": advised(found.prescription[0]) if found.prescription else "",
    }
    reasons = (tag("p", marked(r), class_=f"finding{good}") for r in found.verdict.reasons)
    return joined(*reasons, terms({name: marked(said) for name, said in facts.items()}))


def _how_much(found: Diagnosis) -> str:
    known, hurt = found.verdict.modalities, found.hurt
    if not known:
        return ""
    if found.verdict.kind == IMBALANCED:
        return f"`{hurt.modality}` alone {hurt_share(found)}."
    largest = known[found.verdict.suspect]
    return (
        f"The largest gap of a probe is that of `{largest.modality}`, {said_of(largest.gap)}; "
        f"{_heard(largest)}."
    )


def _heard(found: Neglect) -> str:
    if not found.measured:
        return "what exchanging it does was not measured"
    if math.isnan(found.listening):
        return "a late fusion hardly moves with it"
    return f"the network listens to it {share(found.listening)} as far as a late fusion does"


def _how_sure(found: Diagnosis) -> str:
    count = found.samples.get("test")
    said = (
        f"Intervals are 95 % over {f'{count:,} ' if count else ''}test samples of one network; "
        "another seed may differ."
    )
    if found.verdict.neglected:
        said = (
            "Three signals agree: the probe falls short by at least "
            f"{limit('probe gap'):.2f} and beyond its interval, and both interventions are below "
            f"{limit('listening'):.0%} of a late fusion. " + said
        )
    elif found.verdict.held_back:
        said = (
            "Two signals agree: the whole interval of the probe's gap is above "
            f"{limit('probe gap'):.2f}, and a late fusion is better beyond its interval. " + said
        )
    return said


def gain(found: Diagnosis) -> str:
    """What a late fusion gains over the network, and what that means."""
    least, name = found.verdict.gain, found.verdict.metric
    if least.value != least.value:
        return "Not measured."
    said = f"{signed(least)} {name}, what a late fusion gains over the network"
    if found.verdict.kind == IMBALANCED and least.low > 0:
        return f"{said}: what is to be had without touching the fusion."
    if found.verdict.underfits:
        return f"{said}, which is under-trained: more training may have it as well."
    return f"{said}{'.' if least.low > 0 else ': no gain for sure.'}"


def signed(x: Estimate) -> str:
    """A difference with its sign and interval."""
    return f"{x.value:+.3f} ({x.low:+.3f} to {x.high:+.3f})"


def advised(advice: Advice) -> str:
    """A thing to do in one line."""
    gained = f" Expected: {signed(advice.gain)}." if advice.gain else ""
    return f"`{advice.method}`: {advice.what}{gained}" if advice.method else advice.what
