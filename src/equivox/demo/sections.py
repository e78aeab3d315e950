"""The comparison of methods on one data set: its figures and its table, as a section of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equivox.bench.labels import JOINT
from equivox.bench.statistics import Interval
from equivox.demo.comparison import ALONE, Comparison
from equivox.demo.findings import cells, diagnosis, explanation, label, outcome, verdict
from equivox.diagnosis.metric import Estimate
from equivox.report.page import Markup, joined, marked, table, tag
from equivox.report.parts import Section, charts_of, folded
from equivox.report.plots import Plot, Series, bars, dots, lines, modality_colour

_COLOURS = 7


def methods_section(comparison: Comparison, methods: Sequence[str]) -> Section:
    """What each training reaches over the seeds, what it costs, and what encoders learn in it."""
    said = [verdict(comparison), outcome(comparison, methods)]
    body = joined(
        *(tag("p", marked(line)) for line in said if line),
        charts_of(
            "Intervals are 95 % over seeds, where there are several; the dotted line is joint "
            "training. Contributions are exact Shapley values of the test accuracy, with the "
            "features of the others blanked by zeros. The probe is a linear one in closed form, on "
            "the validation data, mean over seeds.",
            [reached(comparison), _contributions(comparison), *probes(comparison)],
        ),
        _table(comparison),
        folded("How to read the table", _listed(explanation(comparison))),
        folded("What the encoders hold over the seeds", _listed(diagnosis(comparison))),
        folded("Seed by seed", _seeds(comparison)),
    )
    return Section("methods", "Methods compared", body)


def reached(comparison: Comparison) -> Plot:
    """The test accuracy of every row."""
    rows = {name: comparison.row(name).metric for name in comparison.runs}
    values = [_estimate(x) for x in rows.values()]
    joint = rows[JOINT].mean
    title, names = "What each training reaches", [label(name) for name in rows]
    return dots(title, "test accuracy", names, Series("", values, "--s2"), line=joint)


def probes(comparison: Comparison) -> list[Plot]:
    """What is read from each encoder after every epoch: alone, in joint training, with methods."""
    found = {m: _curves(comparison, m) for m in comparison.modalities}
    every = [x for curves in found.values() for curve in curves.values() for x in curve]
    return [_probe(m, curves, (min(every), max(every))) for m, curves in found.items()]


def _curves(comparison: Comparison, modality: str) -> dict[str, list[float]]:
    # Of an ensemble the encoders are trained alone too: their curves would lie on one another.
    shown = [r for r in comparison.runs if not r.startswith(ALONE) and r != "ensemble"]
    curves = {label(row): comparison.curve(row, modality) for row in shown}
    return {"alone": comparison.curve(ALONE + modality, modality)} | curves


def _probe(modality: str, curves: Mapping[str, Sequence[float]], span: tuple[float, float]) -> Plot:
    series = [Series(name, y, f"--s{i % _COLOURS}") for i, (name, y) in enumerate(curves.items())]
    epochs = range(1, max(map(len, curves.values())) + 1)
    title = f"The encoder of {modality}"
    return lines(title, "accuracy of a probe", epochs, series, "epoch", span=span)


def _table(comparison: Comparison) -> Markup:
    caption = f"{comparison.data}: accuracy on the test data, and what it costs to train"
    heads = ["method", "accuracy", "over joint", "over best yardstick", "detectable", "cost"]
    return table(caption, heads, [_merged(comparison, name) for name in comparison.runs])


def _merged(comparison: Comparison, name: str) -> list[str]:
    """A line of the table with each p-value under its gain."""
    row, accuracy, *gains, detectable, cost = cells(comparison, name)
    joint, best = (_gain(*pair) for pair in (gains[:2], gains[2:]))
    return [row, accuracy, joint, best, detectable or "-", cost or "-"]


def _gain(gain: str, p: str) -> Markup:
    if not gain:
        return Markup("-")
    return joined(gain, tag("small", f"p {p}" if p.startswith("<") else f"p = {p}") if p else "")


def _contributions(comparison: Comparison) -> Plot:
    rows = [row for row in comparison.runs if not row.startswith(ALONE)]
    series = [
        Series(m, [_estimate(comparison.contribution(row, m)) for row in rows], modality_colour(i))
        for i, m in enumerate(comparison.modalities)
    ]
    names = [label(row) for row in rows]
    return bars("What each modality contributes", "Shapley value", names, series)


def _seeds(comparison: Comparison) -> Markup:
    rows = [
        [label(name), *(f"{comparison.metric(name)[seed]:.4f}" for seed in comparison.seeds)]
        for name in comparison.runs
    ]
    heads = ["method", *(f"seed {seed}" for seed in comparison.seeds)]
    return table(f"{comparison.data}: accuracy on the test data, seed by seed", heads, rows)


def _listed(said: Sequence[str]) -> Markup:
    return tag("ul", *(tag("li", marked(line)) for line in said))


def _estimate(x: Interval) -> Estimate:
    return Estimate(x.mean, x.low, x.high)
