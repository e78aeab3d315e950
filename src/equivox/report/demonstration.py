"""The page of the demonstration: what was found, the figures, the tables, how to do it again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from equivox.bench.comparison import ALONE, Comparison
from equivox.bench.findings import cells, diagnosis, explanation, label, outcome, verdict
from equivox.bench.folder import versions
from equivox.bench.schedule import Finished
from equivox.report.figures import Bar, Line, bar_chart, line_chart
from equivox.report.page import Markup, code, figure, joined, marked, page, table, tag

MEANING = (
    "A network that learns from several modalities at once may stop training one of its encoders "
    "when another already explains the training data. The accuracy need not tell; a linear probe "
    "of each encoder does.",
    "The opponent of a balancing method is the best simple baseline, not joint training. Adding a "
    "loss for each modality is such a baseline, costs little, and is hard to beat in the "
    "literature. A method that only beats joint training has not shown much.",
    "These are small networks on small data, with default settings that were tuned for no method. "
    "The page shows that the effect exists and how it is measured, not which method is best for "
    "your data.",
    "On the digits every network that sees both modalities learns the shortcut, and balancing does "
    "not undo that: compare with gray alone.",
    "Equal contributions are not the aim. A modality may contribute little because it holds "
    "little; it is neglected only if its encoder would have learned more alone.",
)


def demonstration(
    comparisons: Sequence[Comparison],
    abouts: Sequence[str],
    methods: Sequence[str],
    finished: Finished,
    loop: str,
) -> str:
    """The page.

    :param abouts: What each data set is.
    :param methods: The rows that are balancing methods.
    :param loop: The lines to paste into one's own training loop.
    """
    sections = [
        _section(comparison, about, methods)
        for comparison, about in zip(comparisons, abouts, strict=True)
    ]
    lead = (
        "What joint training does to the encoders of a multimodal network, what it costs, and what "
        "cures it: two cases, and a control in which there is nothing to cure."
    )
    return page(
        "Which modality does the network neglect?",
        tag("p", lead, class_="lead"),
        _notice(finished),
        tag("ul", *(_summary(comparison) for comparison in comparisons)),
        *sections,
        tag("h2", "What this means, and what it does not"),
        tag("ul", *(tag("li", text) for text in MEANING)),
        tag("h2", "How to read the tables"),
        tag("ul", *(tag("li", marked(text)) for text in explanation(comparisons[0]))),
        tag("h2", "In your own loop"),
        code(loop),
        *_origin(finished),
    )


def _notice(finished: Finished) -> Markup:
    if not finished.shortened:
        return Markup("")
    return tag("p", f"Fewer seeds than asked for: {finished.shortened}", class_="notice")


def _summary(comparison: Comparison) -> Markup:
    return tag("li", tag("strong", comparison.data), ": ", marked(verdict(comparison)))


def _section(comparison: Comparison, about: str, methods: Sequence[str]) -> Markup:
    kind = "finding good" if comparison.nothing_to_cure else "finding"
    found = outcome(comparison, methods)
    return joined(
        tag("h2", comparison.data),
        tag("p", marked(about)),
        tag("p", marked(verdict(comparison)), class_=kind),
        tag("ul", *(tag("li", marked(line)) for line in diagnosis(comparison))),
        _probes(comparison),
        _contributions(comparison),
        _table(comparison),
        tag("p", marked(found)) if found else "",
        _seeds(comparison),
    )


def _probes(comparison: Comparison) -> Markup:
    lines = {modality: _lines(comparison, modality) for modality in comparison.modalities}
    every = [y for some in lines.values() for line in some for y in line.values]
    limits = min(every), max(every)
    charts = [
        line_chart(modality, some, "accuracy of a linear probe", limits=limits)
        for modality, some in lines.items()
    ]
    caption = (
        "What a linear probe in closed form reads from each encoder, on the validation data "
        "after every epoch, mean over seeds. The dashed line is the same encoder trained alone: "
        "what joint training falls short of."
    )
    return figure(caption, *charts)


def _lines(comparison: Comparison, modality: str) -> list[Line]:
    """The encoder alone, in joint training and under the methods; an ensemble's are alone too."""
    shown = [r for r in comparison.runs if not r.startswith(ALONE) and r != "ensemble"]
    rows = [ALONE + modality, *shown]
    return [Line(_short(r), comparison.curve(r, modality), i) for i, r in enumerate(rows)]


def _short(row: str) -> str:
    return "alone" if row.startswith(ALONE) else label(row)


def _contributions(comparison: Comparison) -> Markup:
    rows = [r for r in comparison.runs if not r.startswith(ALONE)]
    bars = {row: _bars(comparison, row) for row in rows}
    every = [x for some in bars.values() for b in some for x in (b.value, b.low, b.high) if x == x]
    halves = [rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]]
    charts = [
        bar_chart(
            "What each modality contributes" if number == 0 else "The same, continued",
            [(label(row), bars[row]) for row in half],
            "Shapley value",
            limits=(min(every), max(every)),
        )
        for number, half in enumerate(halves)
        if half
    ]
    caption = (
        "The Shapley value of each modality for the test accuracy, exact, with the features of the "
        "others blanked; they add up to the network's accuracy less that of a guess. "
        "The thin lines are 95 % intervals over seeds."
    )
    return figure(caption, *charts)


def _bars(comparison: Comparison, row: str) -> list[Bar]:
    found = [(m, comparison.contribution(row, m)) for m in comparison.modalities]
    return [Bar(m, phi.mean, phi.low, phi.high, i) for i, (m, phi) in enumerate(found)]


def _table(comparison: Comparison) -> Markup:
    caption = f"{comparison.data}: accuracy on the test data, and what it costs to train"
    heads = [
        "method",
        "accuracy",
        "over joint",
        "over best yardstick",
        "detectable",
        "cost",
    ]
    return table(caption, heads, [_merged(comparison, name) for name in comparison.runs])


def _merged(comparison: Comparison, name: str) -> list[str]:
    """A line of the table with each p-value under its gain."""
    cell = dict(enumerate(cells(comparison, name)))
    gains = [_gain(cell[2], cell[3]), _gain(cell[4], cell[5])]
    return [cell[0], cell[1], *gains, cell[6] or "-", cell[7] or "-"]


def _gain(gain: str, p: str) -> Markup:
    if not gain:
        return Markup("-")
    return joined(gain, tag("small", f"p {p}" if p.startswith("<") else f"p = {p}") if p else "")


def _seeds(comparison: Comparison) -> Markup:
    rows = [
        [label(name), *(f"{comparison.metric(name)[seed]:.4f}" for seed in comparison.seeds)]
        for name in comparison.runs
    ]
    heads = ["method", *(f"seed {seed}" for seed in comparison.seeds)]
    inside = table(f"{comparison.data}: accuracy on the test data, seed by seed", heads, rows)
    return tag("details", tag("summary", "Seed by seed"), inside)


def _origin(finished: Finished) -> list[Markup]:
    command = f"equivox demo --seeds {finished.seeds} --budget {_budget(finished)}"
    facts = versions() | {"platform": sys.platform}
    pairs = [tag(kind, x) for name, x in facts.items() for kind, x in (("dt", name), ("dd", x))]
    return [
        tag("h2", "To make this page again"),
        code(command),
        tag(
            "p",
            f"The runs took {finished.seconds:.0f} s in two processes of one thread each. Every "
            "number of every run is in ",
            tag("code", "runs.json"),
            " beside this page.",
        ),
        tag("dl", *pairs),
    ]


def _budget(finished: Finished) -> int:
    """Enough time for the same seeds on a machine a third slower."""
    return max(100, round(finished.seconds * 4 / 3))
