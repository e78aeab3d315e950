"""How a network fails: robustness, calibration, who is hurt, and faults of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from equivox.report.diagnosis.words import (
    BLANKED,
    BLANKING_COLOURS,
    MOST_ROWS,
    capital,
    cell,
    metric,
)
from equivox.report.numbers import decimal
from equivox.report.page import Markup, marked, table, tag
from equivox.report.parts import beside, charts_of, folded, section
from equivox.report.plots import Plot, Series, bars, lines, modality_colour

if TYPE_CHECKING:
    from equivox.diagnosis.diagnose import Diagnosis
    from equivox.diagnosis.findings import Finding
    from equivox.diagnosis.robustness import Robustness


def robustness(found: Diagnosis) -> Markup:
    """The metric with a modality disturbed, and missing."""
    kinds = dict.fromkeys(r.disturbed.kind for r in found.robustness.values())
    hows = list(dict.fromkeys(h for r in found.robustness.values() for h in r.missing))
    charts = [*(_disturbed(found, kind) for kind in kinds), _missing(found, hows)]
    heads = ["modality", "as it is", *(f"missing: {BLANKED.get(h, h)}" for h in hows),
             "strongest disturbance"]  # fmt: skip

    def row(m: str, r: Robustness) -> list[str]:
        last = r.disturbed.metric[-1] if r.disturbed.metric else None
        return [m, cell(r.whole), *(cell(r.missing.get(h)) for h in hows), cell(last)]

    numbers = table(
        capital(f"{metric(found)} of the network when one modality fails"),
        heads,
        [row(m, r) for m, r in found.robustness.items()],
    )
    caption = (
        "One modality at a time is disturbed, the others are as they are. A line that stays level "
        "belongs to a modality that the network does not use. What is missing is replaced in three "
        "ways; the dotted line is the network with all of them."
    )
    return section("robustness", "Robustness", charts_of(caption, charts), numbers)


def _disturbed(found: Diagnosis, kind: str) -> Plot:
    here = {m: r for m, r in found.robustness.items() if r.disturbed.kind == kind}
    places = [0.0, *next(iter(here.values())).disturbed.levels]
    series = [
        Series(m, [r.whole, *r.disturbed.metric], modality_colour(i))
        for i, (m, r) in enumerate(found.robustness.items())
        if m in here
    ]
    noise = kind == "noise"
    title = "With noise in one modality" if noise else "With one modality exchanged"
    x_label = "standard deviations of the input" if noise else "share of the samples"
    return lines(title, metric(found), places, series, x_label)


def _missing(found: Diagnosis, hows: Sequence[str]) -> Plot:
    series = [
        Series(BLANKED.get(how, how), [r.missing.get(how) for r in found.robustness.values()], c)
        for how, c in zip(hows, BLANKING_COLOURS, strict=False)
    ]
    whole = found.headroom.joint.value
    title = "With one modality missing"
    return bars(title, metric(found), list(found.robustness), series, line=whole)


def calibration(found: Diagnosis) -> Markup:
    """Whether confidence can be trusted, with all and with fewer modalities."""
    of = found.calibration
    if not of.error:
        why = "Calibration is of confidences, which this task does not have."
        return section("calibration", "Calibration", tag("p", why, class_="soft"))
    kept = list(of.error.items())
    cut = kept if len(kept) <= MOST_ROWS else kept[: MOST_ROWS - 1] + kept[-1:]
    rows = [name or "none" for name, _ in cut]
    series = Series("", [x for _, x in cut], "--s2")
    chart = bars("Expected calibration error", "by what the network sees", rows, [series])
    numbers = table(
        "Confidence should not rise with less to go by",
        ["removed", "confidence rises"],
        [[m, cell(x)] for m, x in of.violations.items()],
    )
    listed = ", ".join(f"{row} {decimal(x)}" for row, (_, x) in zip(rows, cut, strict=True))
    blank = BLANKED.get(of.blanking, of.blanking)
    caption = f"Calibration error with the others blanked by {blank}: {listed}."
    if len(cut) < len(kept):
        caption += f" {len(kept) - len(cut)} other subsets are in the JSON twin."
    return section("calibration", "Calibration", beside(caption, chart, numbers))


def data_checks(found: Diagnosis) -> Markup:
    """What was looked at in the data and the set-up."""
    checks = found.data
    left = [f for f in checks if not f.made]
    bad = [f for f in checks if f.severity != "fine"]
    fine = [f for f in checks if f.made and f.severity == "fine"]
    failed, made = (len({f.code for f in some}) for some in (bad, [*bad, *fine]))
    said = (
        f"{failed} of {made} checks found something to look at first."
        if bad
        else f"All {made} checks that were made are fine: the data and the set-up do not explain "
        "it."
    )
    parts = [_checks("What was found", bad)] if bad else []
    if left:
        said += f" {len(left)} could not be made."
        parts.append(folded(f"{len(left)} checks that could not be made", _checks("", left)))
    if fine:
        parts.append(folded(f"{len(fine)} checks that are fine", _checks("", fine)))
    return section("data", "Is it the data?", tag("p", said), *parts)


def _checks(caption: str, checks: Sequence[Finding]) -> Markup:
    rows = [
        [f.code, f.modality or "all", _severity(f), marked(f"{f.what} {f.cure}".strip())]
        for f in checks
    ]
    listed = table(caption, ["check", "modality", "severity", "found, and what to do"], rows)
    return tag("div", listed, class_="words")


def _severity(found: Finding) -> Markup:
    said = found.severity if found.made else "-"
    return tag("span", said, class_=None if found.severity == "fine" else "fault")
