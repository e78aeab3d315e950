"""What the sections of a diagnosis share: names, cells, and figures beside their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from equivox.diagnosis.metric import Estimate
from equivox.report.numbers import decimal, said_of
from equivox.report.page import Markup, joined, tag
from equivox.report.plots import Plot, drawn

if TYPE_CHECKING:
    from equivox.diagnosis.diagnose import Diagnosis

MOST_ROWS = 16
"""So many subsets, routes and classes are shown: with eight modalities there are 256 subsets."""

BLANKED = {"zero": "zeros", "mean": "the mean", "shuffle": "another sample's"}
"""What stands for a blanked modality's features, in words."""

BLANKING_COLOURS = ("--s2", "--s3", "--s4")

_METRICS = {
    "Classification": "accuracy",
    "Dense": "accuracy of the positions",
    "MultiLabel": "F1",
    "Regression": "R²",
}


class Section(NamedTuple):
    """A part of a page that does not come from the diagnosis."""

    name: str
    title: str
    body: Markup


def metric(found: Diagnosis) -> str:
    """What the metric is called that was asked for."""
    return found.metric or usual_metric(found)


def usual_metric(found: Diagnosis) -> str:
    """What the usual metric of the task is called."""
    return _METRICS.get(found.task.partition("(")[0], "metric")


def capital(text: str) -> str:
    """The beginning of a sentence; `str.capitalize` makes "Macro f1" of "macro F1"."""
    return text[:1].upper() + text[1:]


def section(name: str, title: str, *parts: str) -> Markup:
    """A part of the page that links can lead to."""
    return tag("section", tag("h2", title), *parts, id=name)


def cell(x: Estimate | float | None) -> Markup:
    """A value with its interval below it."""
    if isinstance(x, Estimate) and (interval := said_of(x).partition(" (")[2]):
        return joined(decimal(x.value), tag("small", interval[:-1]))
    return joined(said_of(x))


def percent(x: float | None) -> str:
    """A share in words."""
    return "not measured" if x is None or x != x else f"{x:.0%}"


def terms(facts: Mapping[str, str]) -> Markup:
    """Names, and what is said of each."""
    pairs = [
        tag(kind, x) for pair in facts.items() for kind, x in zip(("dt", "dd"), pair, strict=True)
    ]
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
