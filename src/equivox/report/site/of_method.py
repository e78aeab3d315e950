"""The page of a method: what it is, and how it does on every data set."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from equivox.bench.jobs import Choice
from equivox.bench.labels import parts
from equivox.bench.leaderboard import Key, Line, title
from equivox.catalogue import papers
from equivox.method import Method
from equivox.report.page import Markup, joined, marked, table, tag
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
    every = (inspect.getdoc(kind) or "" for kind in parts(method).values())
    return " ".join(text.partition("\n")[0] for text in every)


def _facts(method: str) -> Markup:
    """What is known of it without running it; of a chain, of each of its methods."""
    name, built = tag("code", method), tag("code", _built(method))
    known = {part: _known(part, kind) for part, kind in parts(method).items()}
    if len(known) == 1:
        return terms({"Name": name, **next(iter(known.values())), "In Python": built})
    each = [joined(tag("h2", title(part)), terms(facts)) for part, facts in known.items()]
    return joined(terms({"Name": name, "In Python": built}), *each)


def _known(name: str, kind: type[Method]) -> dict[str, str]:
    paper = next((p for p in papers() if p["key"] == name), None)
    signature = inspect.signature(kind).parameters.values()
    needs = [words for flag, words in _NEEDS.items() if getattr(kind, flag)]
    return {
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
    }


def _built(method: str) -> str:
    """The expression that builds it, with the arguments of its label."""
    given = Choice.parse(method).options
    return " + ".join(
        f"ev.{kind.__name__}({_own(name, kind, given)})" for name, kind in parts(method).items()
    )


def _own(name: str, kind: type[Method], given: Mapping[str, Any]) -> str:
    own = {key.removeprefix(f"{name}."): value for key, value in given.items()}
    known = inspect.signature(kind).parameters
    return ", ".join(f"{key}={value!r}" for key, value in own.items() if key in known)


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
