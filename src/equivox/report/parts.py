"""What pages share: sections, names with facts, parts to open, and figures beside numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from equivox.report.page import Markup, joined, tag
from equivox.report.plots import Plot, drawn


class Section(NamedTuple):
    """A part of a page that does not come from the diagnosis."""

    name: str
    title: str
    body: Markup


def section(name: str, title: str, *parts: str) -> Markup:
    """A part of the page that links can lead to."""
    return tag("section", tag("h2", title), *parts, id=name)


def terms(facts: Mapping[str, str]) -> Markup:
    """Names, and what is said of each; nothing of those of which nothing is known."""
    pairs = [joined(tag("dt", name), tag("dd", said)) for name, said in facts.items() if said]
    return tag("dl", *pairs, class_="facts")


def folded(summary: str, inside: Markup) -> Markup:
    return tag("details", tag("summary", summary), inside)


def charts_of(caption: str, charts: Sequence[Plot]) -> Markup:
    inside = tag("div", *(drawn(chart) for chart in charts), class_="charts plots")
    return tag("figure", inside, tag("figcaption", caption))


def beside(caption: str, chart: Plot, numbers: Markup) -> Markup:
    """A figure beside its numbers."""
    inside = tag("div", drawn(chart), tag("div", numbers, class_="compact"), class_="charts plots")
    return tag("figure", inside, tag("figcaption", caption))
