"""The first page: what the comparison says, the leaderboard, and the way to everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from equivox.bench.labels import category
from equivox.bench.leaderboard import JOINT, Leaderboard, Line, is_yardstick, title
from equivox.bench.notation import counted, signed
from equivox.report.page import Markup, joined, marked, tag
from equivox.report.parts import section
from equivox.report.site import reading
from equivox.report.site.cells import (
    HEADS,
    MARKS,
    SURE,
    cells,
    kind,
    name,
    number,
    settings,
    verdict,
)
from equivox.report.site.content import Content
from equivox.report.site.document import Cell, Row, board, document
from equivox.report.site.lacking import incomplete
from equivox.report.site.links import data_page, method_page, runs_of
from equivox.report.site.pareto import pareto
from equivox.report.site.ranks import caption, diagram

_CONTENTS = {
    "reading": "What it says",
    "leaderboard": "All results",
    "overview": "Overview",
    "ranks": "Average ranks",
    "cost": "Cost",
    "how-to-read": "How to read it",
    "data-sets": "Data sets",
    "methods": "Methods",
    "downloads": "Downloads",
}

_WORDS = {
    "Yardstick": "A simple baseline: each modality alone, ensembles of them, joint training with "
    "unimodal losses, and the like. The best one by validation data is the opponent; to be better "
    "than joint training is not enough.",
    "Metric": "On the test data, of the epoch that is best on the validation data; the mean over "
    "seeds, and below it the 95 % interval of Student's t (BCa bootstrap from 20 seeds on). The "
    "larger the better.",
    "Over …": "The difference paired by seed, with its 95 % interval.",
    "p (Holm)": "Of the paired t-test against the best yardstick, corrected by Holm for all "
    f"methods of the board. ▲ and ▼ are clearly above and below it: corrected p below {SURE:g}.",
    "Detectable": "The true difference that four of five such experiments would find before Holm's "
    "correction; to be found after it as well it has to be larger.",
    "Mechanism effect": "The difference to the yardstick that has the method's ingredients and not "
    "its mechanism, which is named.",
    "Harm": "The share of seeds in which the method is worse than the best yardstick, sample by "
    "sample (exact McNemar test, 5 %; Wilcoxon's for regression).",
    "Imbalance": "The mean absolute difference of the modalities' Shapley values. Equal values are "
    "no success by themselves: read it beside the metric.",
    "Step, FLOPs, memory, time": "As multiples of joint training: of a measured step, of counted "
    "operations and of memory; time is that of the whole run, on a machine that did other things "
    "as well.",
    "Incomplete": "A line is complete with five seeds beside yardsticks that have five seeds and "
    "are tuned with as many trials.",
}


def page(content: Content, downloads: Sequence[str]) -> str:
    """The page as HTML.

    :param downloads: The files of the tables, from the site's root.
    """
    parts = {
        "reading": _reading(content),
        "leaderboard": _leaderboard(content),
        "overview": [_overview(content)],
        "ranks": _ranks(content),
        "cost": _costs(content),
        "how-to-read": [_how_to_read()],
        "data-sets": [_data_sets(content)],
        "methods": _methods(content),
        "downloads": [_downloads(downloads)],
    }
    shown = {key: part for key, part in parts.items() if part}
    links = [tag("li", tag("a", _CONTENTS[key], href=f"#{key}")) for key in shown]
    return document(
        "Leaderboard",
        tag("p", _counted(content), class_="lead"),
        tag("ul", *links, class_="contents"),
        *(section(key, _CONTENTS[key], *part) for key, part in shown.items()),
    )


def _counted(content: Content) -> str:
    runs = sum(line.metric.seeds for line in content.lines)
    failed = sum(len(x) for b in content.boards.values() for x in b.failures.values())
    also = f", and {failed} that failed" if failed else ""
    methods, data = counted(len(content.methods), "method"), counted(len(content.data), "data set")
    return f"{methods}, yardsticks included, on {data}: {counted(runs, 'run')}{also}."


def _reading(content: Content) -> list[Markup]:
    said = [tag("li", marked(text)) for text in reading.of_all(content)]
    return [incomplete(content), tag("ul", *said), _glance(content)]


def _glance(content: Content) -> Markup:
    """One line a board: the yardstick, and how many methods are above and below it."""
    heads = (
        "data set", "hyper-parameters", "joint", "best yardstick", "methods", "▲ above it",
        "▼ below it", "above joint", "below joint",
    )  # fmt: skip
    rows = [_counts(b) for b in content.boards.values()]
    return board("glance", "Clearly above and below, by board; joint by its interval", heads, rows)


def _counts(found: Leaderboard) -> Row:
    some, said = found.lines[0], reading.count(found)
    metric = {line.method: line.metric.mean for line in found.lines}
    best = (
        joined(title(found.best), tag("small", f"{metric[found.best]:.3f}")) if found.best else ""
    )
    link = tag("a", some.data, href=data_page(some.data))
    numbers = (said.methods, len(said.above), len(said.below), said.over_joint, said.under_joint)
    return Row(
        Cell(link, some.data),
        [
            Cell(settings(some.tuned), settings(some.tuned)),
            number(metric.get(JOINT, math.nan), 3),
            Cell(best, found.best),
            *(number(n, 0) for n in numbers),
        ],
        {},
    )


# ── all results ─────────────────────────────────────────────────────────────────────────────────


def _leaderboard(content: Content) -> list[Markup]:
    heads = ("method", "data set", *HEADS, "category", "hyper-parameters")
    rows = [_row(line, content.some_complete) for line in content.lines]
    caption = "Every method on every data set; yardsticks are tinted. The metric leads to the runs."
    return [_filters(content), board("all", caption, heads, rows)]


def _row(line: Line, telling: bool) -> Row:
    chosen = settings(line.tuned)
    link = tag("a", line.data, href=data_page(line.data))
    facts = {"category": line.category, "data": line.data, "settings": chosen}
    after = [Cell(line.category, line.category), Cell(chosen, chosen)]
    inside = [Cell(link, line.data), *cells(line, "", telling), *after]
    return Row(name(line, ""), inside, facts, kind(line))


def _filters(content: Content) -> Markup:
    """The controls of the table; the script shows them."""
    lines = content.lines
    choices = {
        "data": ("Data set", content.data),
        "category": ("Category", sorted({line.category for line in lines})),
        "settings": ("Hyper-parameters", list(dict.fromkeys(settings(x.tuned) for x in lines))),
    }
    selects = [_select(key, label, values) for key, (label, values) in choices.items()]
    search = tag("label", "Search ", tag("input", type="search", name="text"))
    shown = tag("output", aria_live="polite")
    return tag("form", *selects, search, shown, class_="filters screen", data_for="all", hidden="")


def _select(key: str, label: str, values: Sequence[str]) -> Markup:
    options = [tag("option", value, value=value) for value in values]
    every = tag("option", "all", value="")
    return tag("label", f"{label} ", tag("select", every, *options, name=key))


# ── overview ────────────────────────────────────────────────────────────────────────────────────


def _overview(content: Content) -> Markup:
    """Methods x boards: the difference to the best yardstick."""
    heads = ["method"] + [
        data + (f", {settings(tuned)}" if tuned else "") for data, tuned in content.boards
    ]
    boards = list(content.boards.values())
    rows = [_across(method, boards) for method in content.by_rank]
    caption = (
        "The difference to the best yardstick of each data set; ▲ clearly above, ▼ clearly below it"
    )
    return board("across", caption, heads, rows)


def _across(method: str, boards: Sequence[Leaderboard]) -> Row:
    cells = [_difference(method, found) for found in boards]
    head = tag("a", title(method), href=method_page(method))
    row_kind = "yardstick" if is_yardstick(method) else None
    return Row(Cell(head, title(method)), cells, {}, row_kind)


def _difference(method: str, found: Leaderboard) -> Cell:
    line = next((line for line in found.lines if line.method == method), None)
    if line is None or not found.best:
        return Cell("", math.nan)
    over, clear = line.over_yardstick, verdict(line)
    if over is None and method != found.best:
        return Cell("", math.nan)
    said = MARKS.get(clear or "", "") + signed(over.mean) if over else "best"
    link = tag("a", said, href=runs_of(line.data, line.method, line.tuned), class_=clear)
    return Cell(link, over.mean if over else 0.0)


# ── figures ─────────────────────────────────────────────────────────────────────────────────────


def _ranks(content: Content) -> list[Markup]:
    """A diagram for the defaults and for every number of trials that has several data sets."""
    return [
        tag("figure", tag("figcaption", _heading(tuned), caption(found)), diagram(found))
        for tuned, found in content.rankings.items()
    ]


def _heading(tuned: int) -> str:
    return f"Tuned by {counted(tuned, 'trial')}. " if tuned else ""


def _costs(content: Content) -> list[Markup]:
    """A figure a board."""
    charts = [
        pareto(found, "", data + (f", {settings(tuned)}" if tuned else ""))
        for (data, tuned), found in content.boards.items()
    ]
    known = [chart for chart in charts if chart]
    if not known:
        return []
    said = (
        "The metric against the cost; squares are yardsticks. No method is both better and cheaper "
        "than the numbered ones, which the stairs join. An arrow is a method below the axis."
    )
    return [tag("figure", tag("figcaption", said), tag("div", *known, class_="charts"))]


# ── the rest ────────────────────────────────────────────────────────────────────────────────────


def _how_to_read() -> Markup:
    entries = [joined(tag("dt", word), tag("dd", said)) for word, said in _WORDS.items()]
    return tag("dl", *entries)


def _data_sets(content: Content) -> Markup:
    links = [tag("li", tag("a", data, href=data_page(data))) for data in content.data]
    return tag("ul", *links, class_="columns")


def _methods(content: Content) -> list[Markup]:
    """Links by category, yardsticks first."""
    groups: dict[str, list[str]] = {}
    for method in content.methods:
        groups.setdefault(category(method), []).append(method)
    found = []
    for changed, names in groups.items():
        links = [tag("li", tag("a", title(n), href=method_page(n))) for n in names]
        found += [tag("h3", changed.capitalize()), tag("ul", *links, class_="columns")]
    return found


def _downloads(paths: Sequence[str]) -> Markup:
    links = [tag("li", tag("a", path.partition("/")[2], href=path, download="")) for path in paths]
    return joined(tag("p", "All tables, one number a column in the CSV:"), tag("ul", *links))
