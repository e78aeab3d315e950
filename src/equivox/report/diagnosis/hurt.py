"""Who is hurt: the classes and samples that the neglected modality alone would have got right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from equivox.report.diagnosis.previews import cards
from equivox.report.diagnosis.words import MOST_ROWS, cell, percent, rightly
from equivox.report.numbers import decimal
from equivox.report.page import Markup, joined, table, tag
from equivox.report.parts import beside, folded, section
from equivox.report.plots import Series, bars

if TYPE_CHECKING:
    from equivox.diagnosis.diagnose import Diagnosis
    from equivox.diagnosis.hurt import Case


def hurt(found: Diagnosis) -> Markup:
    """The classes and samples that the modality alone would have got right."""
    of = found.hurt
    said = joined(tag("strong", of.modality), f" alone {hurt_share(found)}.")
    parts: list[str] = [tag("p", said)]
    if of.classes:
        parts.append(_classes(found))
    if found.previews:
        parts.append(_looks(found))
    if of.cases:
        parts.append(_cases(found))
    return section("hurt", "Who is hurt", *parts)


def hurt_share(found: Diagnosis) -> str:
    """How many samples the modality alone answers better, in words."""
    of = found.hurt.share
    how = "with a smaller error" if _numbers(found) else "rightly where the network is wrong"
    if meant := rightly(found):
        how = f"{how} (right: {meant})"
    if of.value != of.value:
        return "was not compared with the network sample by sample"
    return f"answers {of.value:.1%} ({of.low:.1%} to {of.high:.1%}) of the test samples {how}"


def _numbers(found: Diagnosis) -> bool:
    return found.task.startswith("Regression")


def _classes(found: Diagnosis) -> Markup:
    modality, classes = found.hurt.modality, found.hurt.classes
    shown = classes[:MOST_ROWS]
    series = [
        Series("the network", [c.network for c in shown], "--s1"),
        Series(f"{modality} alone", [c.alone.get(modality) for c in shown], "--s2"),
    ]
    names = [_class(found, c.number) for c in shown]
    chart = bars("What is found of each class", "recall", names, series)
    numbers = table(
        f"Recall of the network and of {modality} alone, the most missed classes first",
        ["class", "network", "alone", "missed"],
        [
            [joined(name, tag("small", f"{c.samples} samples")), cell(c.network),
             cell(c.alone.get(modality)), cell(c.missed)]
            for name, c in zip(names, shown, strict=True)
        ],
    )  # fmt: skip
    cut = f" {len(shown)} of {len(classes)} classes." if len(shown) < len(classes) else ""
    caption = f"Missed is what {modality} alone finds and the network does not.{cut}"
    return beside(caption, chart, numbers)


def _class(found: Diagnosis, number: int) -> str:
    return found.classes[number] if found.classes else f"class {number}"


def _looks(found: Diagnosis) -> Markup:
    """The inputs of a few cases, with the truth and the two answers."""
    modality, cases = found.hurt.modality, {case.index: case for case in found.hurt.cases}
    samples = {}
    for number, shown in found.previews.items():
        truth, network, alone = _said(found, cases[number])
        samples[number] = f"truth: {truth} · network: {network} · alone: {alone}", shown
    first = "the largest excess" if _numbers(found) else "the surest of each class"
    title = f"Test samples that {modality} alone answers better, {first} first"
    return joined(tag("h3", title), cards(samples, modality))


def _cases(found: Diagnosis) -> Markup:
    modality, cases = found.hurt.modality, found.hurt.cases
    regression = _numbers(found)

    def row(c: Case) -> list[str]:
        sure = (
            [decimal(c.excess)]
            if regression
            else [percent(c.network_confidence), percent(c.modality_confidence)]
        )
        return [str(c.index), *_said(found, c), *sure]

    last = ["excess of the squared error"] if regression else ["sure: network", "sure: alone"]
    heads = ["sample", "truth", "network", "alone", *last]
    first = "is better by most" if regression else "is surest"
    why = f"Test samples by number, those first where {modality} alone {first}"
    return folded(f"{len(cases)} samples in a table", table(why, heads, [row(c) for c in cases]))


def _said(found: Diagnosis, case: Case) -> list[str]:
    """The truth, the network's answer and the modality's, by class names where they are known."""
    counts = found.task.startswith("Dense")  # of positions, not classes
    return [
        _answer(x, () if counts else found.classes)
        for x in (case.target, case.network, case.modality)
    ]


def _answer(x: Any, names: Sequence[str]) -> str:
    if isinstance(x, float):
        return decimal(x)
    if isinstance(x, (list, tuple)):
        return ", ".join(_answer(part, names) for part in x) or "none"
    return names[x] if names else str(x)
