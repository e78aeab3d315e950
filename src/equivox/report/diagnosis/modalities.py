"""What a diagnosis measured of the modalities: headroom, contributions, use and probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.verdict import BALANCED, limit
from equivox.report.diagnosis.words import (
    BLANKED,
    BLANKING_COLOURS,
    MOST_ROWS,
    UNMOVED,
    capital,
    cell,
    metric,
    rightly,
    share,
    usual_metric,
)
from equivox.report.numbers import decimal, said_of
from equivox.report.page import Markup, marked, table, tag
from equivox.report.parts import beside, charts_of, folded, section
from equivox.report.plots import Plot, Series, bars

if TYPE_CHECKING:
    from equivox.diagnosis.diagnose import Diagnosis
    from equivox.diagnosis.use import Use


def headroom(found: Diagnosis) -> Markup:
    """Chance, each modality alone, the network, and a late fusion."""
    head = found.headroom
    rows = [f"{m} alone" for m in head.alone] + ["the network", "late fusion"]
    values = [*head.alone.values(), head.joint, head.late_fusion]
    colours = ["--s0"] * len(head.alone) + ["--s1", "--s2"]
    chart = bars(
        "What one could have had",
        metric(found),
        rows,
        [Series("", values, "--s0")],
        colours=colours,
        line=head.chance,
    )
    differences = {
        "late fusion over the network": head.gain,
        f"{head.best_single} alone over the network": head.single_gain,
    }
    numbers = table(
        capital(f"{metric(found)}, with 95 % intervals over the samples"),
        ["", "value", "interval"],
        [["chance", decimal(head.chance), ""]]
        + [[row, *_apart(x)] for row, x in zip(rows, values, strict=True)]
        + [[row, *_apart(x)] for row, x in differences.items()],
    )
    alarm = "Late fusion or the best single modality beats the network, beyond the interval"
    calm = "Neither late fusion nor the best single modality beats the network for sure."
    counts = found.verdict.kind != BALANCED
    had = ": something is to be had." if counts else ", but by too little to count."
    said = alarm + had if head.alarm else calm
    caption = (
        "The dotted line is chance. Late fusion adds up what the models trained alone say. The "
        f"best single modality, {head.best_single}, was chosen on the validation data."
    )
    return section(
        "headroom", "Headroom", tag("p", said), _unfinished(found), beside(caption, chart, numbers)
    )


def contributions(found: Diagnosis) -> Markup:
    """Shapley values under three ways of blanking, and the routing table."""
    names = list(found.modalities)
    shown = [
        Series(BLANKED.get(how, how), [each.values.get(m) for m in names], colour)
        for (how, each), colour in zip(found.contributions.items(), BLANKING_COLOURS, strict=False)
    ]
    chart = bars("What each modality contributes", "Shapley value",
                 names, shown)  # fmt: skip
    heads = ["modality", *(s.name for s in shown)]
    rows: list[list[str]] = [[m, *(cell(s.values[i]) for s in shown)] for i, m in enumerate(names)]
    every = list(found.contributions.values())
    rows.append(["imbalance", *(decimal(each.imbalance) for each in every)])
    sampled = any(each.sampled for each in every)
    how = "sampled over random orders of the modalities" if sampled else "exact, over all subsets"
    caption = (
        f"Shapley values of the {metric(found)}, {how}, by what stands for what is "
        "left out. They add up to what the network gains over having none. Where the three "
        "disagree, trust none of them alone."
    )
    parts = [beside(caption, chart, table("The numbers, with intervals", heads, rows))]
    return section("contributions", "Contributions", *parts, _interactions(found), _routing(found))


def _interactions(found: Diagnosis) -> Markup:
    every = found.contributions
    sizes: dict[str, float] = {}
    for each in every.values():
        for pair, x in each.interaction.items():
            sizes[pair] = max(sizes.get(pair, 0.0), abs(x))
    if not sizes:
        return Markup("")
    pairs = sorted(sizes, key=lambda pair: -sizes[pair])[:MOST_ROWS]
    rows = [
        [pair, *(decimal(each.interaction.get(pair)) for each in every.values())] for pair in pairs
    ]
    heads = ["pair", *(BLANKED.get(how, how) for how in every)]
    caption = "Positive is synergy, negative redundancy; the strongest first."
    listed = tag("div", table(caption, heads, rows), class_="compact")
    return folded("Interactions of pairs of modalities", listed)


def _routing(found: Diagnosis) -> Markup:
    if not found.routing:
        why = "There is no routing table: this task has no right and wrong answers."
        return tag("p", why, class_="soft")
    largest = sorted(found.routing, key=lambda r: -r.samples)[:MOST_ROWS]
    rows = [
        [
            _right(r.right, list(found.headroom.alone)),
            str(r.samples),
            f"{r.share:.1%}",
            cell(r.metric),
        ]
        for r in found.routing
        if r in largest
    ]
    left = 1 - sum(r.share for r in largest)
    cut = f" The other groups hold {left:.1%} of the samples." if len(largest) < len(
        found.routing) else ""  # fmt: skip
    meant = f" A sample is answered rightly where {rightly(found)}." if rightly(found) else ""
    none = (
        " In the last group none does: what the network gets right there is synergy."
        if any(not r.right for r in largest)
        else ""
    )
    caption = (
        f"Routing: the test samples by who answers rightly when trained alone.{meant}{none}{cut}"
    )
    heads = ["right alone", "samples", "share", f"{usual_metric(found)} of the network"]
    return tag("div", table(caption, heads, rows), class_="compact")


def _right(names: Sequence[str], every: Sequence[str]) -> str:
    """Who is right; of many modalities, who is not."""
    wrong = [m for m in every if m not in names]
    if len(every) > 3 and len(wrong) < len(names):
        return f"all but {', '.join(wrong)}" if wrong else "all"
    return ", ".join(names) or "none"


def use(found: Diagnosis) -> Markup:
    """Interventions in the network and in a late fusion; the probes."""
    names = list(found.modalities)
    regression = found.task.startswith("Regression")
    unit = "change² / variance" if regression else "Jensen-Shannon, bits"

    def both(title: str, label: str, of: str) -> Plot:
        pair = {"the network": (found.use, "--s1"), "late fusion": (found.late_use, "--s2")}
        series = [
            Series(name, [_part(by.get(m), of) for m in names], colour)
            for name, (by, colour) in pair.items()
        ]
        return bars(title, label, names, series)

    charts = [both("How far predictions move", unit, "divergence"),
              both(f"How far the {metric(found)} falls", metric(found), "drop")]  # fmt: skip
    caption = (
        "One modality is exchanged for that of a sample with another target, the others stay. Late "
        "fusion listens to each as far as it is sure of itself: the network should not listen to "
        "a modality far less."
    )
    parts = [charts_of(caption, charts), _use_table(found), _few_pairs(found), _probes(found)]
    return section("use", "Use", *parts)


def _few_pairs(found: Diagnosis) -> Markup:
    """What is said where hardly any sample meets one with another target."""
    pairs = min((u.pairs for u in found.use.values() if u.pairs is not None), default=None)
    if pairs is None or pairs >= limit("samples"):
        return Markup("")
    said = (
        f"Only {pairs} test samples met one with another target: what exchanging does rests on "
        "these alone, and listening and reliance are unsure."
    )
    return tag("p", said, class_="notice")


def _part(of: Use | None, name: str) -> Estimate | None:
    found: Estimate | None = getattr(of, name, None)
    return found


def _use_table(found: Diagnosis) -> Markup:
    known = found.verdict.modalities

    def row(m: str) -> list[str]:
        mine, late = found.use.get(m), found.late_use.get(m)
        parts = [_part(x, of) for of in ("divergence", "drop") for x in (mine, late)]
        shares = [known[m].listening, known[m].reliance] if m in known else [None, None]
        said = ["not measured" if x is None else share(x) for x in shares]
        if m in known and not known[m].measured:
            said = ["not measured", "not measured"]
        return [m, cell(parts[0]), cell(parts[1]), said[0], cell(parts[2]), cell(parts[3]), said[1]]

    heads = ["modality", "moves the network", "moves late fusion", "listening",
             "drop of the network", "drop of late fusion", "reliance"]  # fmt: skip
    caption = (
        "Listening and reliance are the network's share of what a late fusion does; where that "
        f"hardly moves, there is nothing to compare with (“{UNMOVED}”)."
    )
    return table(caption, heads, [row(m) for m in found.modalities])


def _probes(found: Diagnosis) -> Markup:
    if not found.probes:
        why = "There are no probes: this task has no single vector a sample to read."
        return tag("p", why, class_="soft")
    names = list(found.probes)
    series = [
        Series("in the network", [found.probes[m].joint for m in names], "--s1"),
        Series("trained alone", [found.probes[m].alone for m in names], "--s2"),
    ]
    chart = bars("What a linear probe reads from each encoder", metric(found), names, series)
    rows = [[m, cell(p.joint), cell(p.alone), cell(p.gap)] for m, p in found.probes.items()]
    numbers = table(
        "The gap is alone minus network, paired by sample",
        ["modality", "in the network", "trained alone", "gap"],
        rows,
    )
    caption = (
        "The probe tells an encoder that learned too little from a fusion that ignores it: "
        "it reads the frozen features, whatever the fusion makes of them."
    )
    return beside(caption, chart, numbers)


def _apart(x: Estimate) -> tuple[str, str]:
    value, _, interval = said_of(x).partition(" (")
    return value, interval[:-1]


def _unfinished(found: Diagnosis) -> Markup:
    late = {m: epochs for m, (epochs, converged) in found.epochs_alone.items() if not converged}
    if not late:
        return Markup("")
    listed = ", ".join(f"{m} ({epochs} epochs)" for m, epochs in late.items())
    said = (
        f"Not trained alone to convergence: {listed}. Alone it may be better than is shown here, "
        "and its gap larger. Pass `epochs=` to allow more."
    )
    return tag("p", marked(said), class_="notice")
