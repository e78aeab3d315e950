"""The words of a diagnosis's page, and how its numbers are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from equivox.diagnosis.metric import Estimate
from equivox.report.numbers import decimal, said_of
from equivox.report.page import Markup, joined, tag

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


def metric(found: Diagnosis) -> str:
    """What the metric is called that was asked for."""
    return found.metric or usual_metric(found)


def usual_metric(found: Diagnosis) -> str:
    """What the usual metric of the task is called."""
    return _METRICS.get(found.task.partition("(")[0], "metric")


_RIGHTLY = {
    "Dense": "more than half of its positions are right",
    "MultiLabel": "the F1 of its labels is above 0.5",
}


def rightly(found: Diagnosis) -> str:
    """When a sample counts as answered rightly, in words; empty where that goes without saying."""
    return _RIGHTLY.get(found.task.partition("(")[0], "")


def capital(text: str) -> str:
    """The beginning of a sentence; `str.capitalize` makes "Macro f1" of "macro F1"."""
    return text[:1].upper() + text[1:]


def cell(x: Estimate | float | None) -> Markup:
    """A value with its interval below it."""
    if isinstance(x, Estimate) and (interval := said_of(x).partition(" (")[2]):
        return joined(decimal(x.value), tag("small", interval[:-1]))
    return joined(said_of(x))


UNMOVED = "-"
"""Where a late fusion does not move with a modality, so that there is nothing to compare with."""


def share(x: float) -> str:
    """How far the network moves as a share of what a late fusion does, in words.

    >>> share(0.084), share(131.0), share(float("nan"))
    ('8%', '>1000%', '-')
    """
    if x != x:
        return UNMOVED
    return percent(x) if x <= 10 else ">1000%"


def percent(x: float | None) -> str:
    """A share in words."""
    return "not measured" if x is None or x != x else f"{x:.0%}"
