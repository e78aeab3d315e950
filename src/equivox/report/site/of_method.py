"""The page of a method: what it is, and how it does on every data set."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from equivox import methods
from equivox.bench.jobs import Choice
from equivox.bench.leaderboard import Key, Line, title
from equivox.catalogue import papers
from equivox.method import Method
from equivox.report.page import Markup, marked, table, tag
from equivox.report.parts import section, terms
from equivox.report.site import reading
from equivox.report.site.cells import HEADS, arguments, cells, settings
from equivox.report.site.content import Content, Found
from equivox.report.site.document import Cell, Row, board, document
from equivox.report.site.links import ROOT, data_page, runs_of
from equivox.report.site.strip import Strips

_NEEDS = {
    "per_loss_gradients": "a gradient for every loss",
    "needs_validation": "validation data in training",
    "needs_index": "the samples' indices",
    "resamples": "draws its own samples",
    "replaces_fusion": "puts its own fusion in",
}


def page(content: Content, method: str, strips: Mapping[Key, Strips]) -> str:
    """The page as HTML."""
    found = content.of_method(method)
    return document(
        title(method),
        tag("p", _summary(method), class_="lead"),
        *(tag("p", marked(said)) for said in reading.of_method(found)),
        _facts(method),
        section("results", "Results", *_results(found, strips)),
        *_chosen(found),
        *_failures(content, method),
        up=ROOT,
    )


def _summary(method: str) -> str:
    return (inspect.getdoc(_class(method)) or "").partition("\n")[0]


def _class(method: str) -> type[Method]:
    return methods.get(Choice.parse(method).name)


def _facts(method: str) -> Markup:
    """What is known of it without running it."""
    name, kind = Choice.parse(method).name, _class(method)
    paper = next((p for p in papers() if p["key"] == name), None)
    signature = inspect.signature(kind).parameters.values()
    needs = [words for flag, words in _NEEDS.items() if getattr(kind, flag)]
    return terms(
        {
            "Name": tag("code", method),
            "Paper": _paper(paper) if paper else "",
            "Category": kind.category,
            "Ingredients": ", ".join(sorted(kind.ingredients)) or "none besides its mechanism",
            "Fidelity": kind.fidelity,
            "Tasks": ", ".join(kind.tasks),
            "Needs": ", ".join(needs),
            "Defaults": ", ".join(
                f"{p.name} = {p.default!r}" for p in signature if p.kind is p.KEYWORD_ONLY
            ),
            "Search space": "; ".join(f"{k}: {v}" for k, v in kind.search_space.items()),
            "In Python": tag("code", f"ev.{kind.__name__}()"),
        }
    )


def _paper(paper: Mapping[str, str | None]) -> Markup:
    title, venue = paper["title"] or "", f" ({paper['venue']})"
    named = tag("a", title, href=paper["url"]) if paper["url"] else title
    return tag("span", named, venue)


def _results(found: Found, strips: Mapping[Key, Strips]) -> list[Markup]:
    if not found:
        return [tag("p", "There are none.")]
    rows = [_row(line, strips[line.data, line.tuned]) for _, line in found]
    legend = (
        "Dots are seeds, each row on the scale of its data set's page; an arrow is one below it, "
        "the long stroke is the mean, and the band is the interval of the best yardstick."
    )
    heads = ("data set", "by seed", *HEADS, "hyper-parameters")
    return [board("results-table", legend, heads, rows)]


def _row(line: Line, strips: Strips) -> Row:
    link = tag("a", line.data, href=ROOT + data_page(line.data))
    strip = Cell(strips.strip(line.method), line.metric.mean)
    chosen = Cell(settings(line.tuned), settings(line.tuned))
    return Row(Cell(link, line.data), [strip, *cells(line, ROOT), chosen], {})


def _chosen(found: Found) -> list[Markup]:
    """The hyper-parameters of the tuned runs, which are not the defaults."""
    rows = []
    for on, line in found:
        run = next(iter(on.runs[line.method].values()))
        if line.tuned or run["arguments"]:
            link = tag("a", line.data, href=ROOT + runs_of(line.data, line.method, line.tuned))
            rows.append([link, settings(line.tuned), tag("code", arguments(run["arguments"]))])
    if not rows:
        return []
    heads = ("data set", "chosen by", "hyper-parameters")
    return [section("chosen", "Hyper-parameters", table("Other than the defaults", heads, rows))]


def _failures(content: Content, method: str) -> list[Markup]:
    told = [
        tag(
            "li",
            tag("a", data, href=ROOT + runs_of(data, method, tuned)),
            f", seed {seed}: ",
            marked(why),
        )
        for (data, tuned), on in content.boards.items()
        for seed, why in sorted(on.failures.get(method, {}).items())
    ]
    return [section("failed", "Runs that failed", tag("ul", *told))] if told else []
