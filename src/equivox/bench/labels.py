"""What is known of a method by the label that it has in a comparison."""

from __future__ import annotations

from functools import cache
from typing import Any

from equivox.bench.jobs import Choice

JOINT = "joint"
WITHOUT_MECHANISM = {
    frozenset[str](): JOINT,
    frozenset({"unimodal losses"}): "unimodal_losses",
    frozenset({"unimodal losses", "extra parameters"}): "unimodal_losses",
    frozenset({"unimodal losses", "inference rule", "extra parameters"}): "ensemble",
    frozenset({"unimodal initialisation", "extra epochs"}): "unimodal_init",
}
"""The yardstick that has a method's ingredients without its mechanism."""


@cache
def title(method: str) -> str:
    """A method's name as people read it, with its arguments.

    >>> title("ogm_ge:alpha=0.5")
    'OGM-GE, alpha=0.5'
    """
    from equivox.catalogue import entries

    choice = Choice.parse(method)
    names = {entry["key"]: entry["name"] for entry in entries()}
    chain = " + ".join(names[name.strip()] for name in choice.name.split("+"))
    return ", ".join([chain, *(f"{key}={value}" for key, value in choice.options.items())])


def category(method: str) -> str:
    """What a method changes, or "yardstick"; of a chain, that of its first."""
    return str(_classes(method)[0].category)


def is_yardstick(method: str) -> bool:
    """Whether a method is a simple baseline."""
    return category(method) == "yardstick"


def reference(method: str) -> str:
    """The yardstick that lacks the method's mechanism alone; empty where there is none.

    >>> reference("ogm_ge"), reference("mmpareto"), reference("ensemble")
    ('joint', 'unimodal_losses', '')
    """
    if is_yardstick(method):
        return ""
    used = frozenset().union(*(found.ingredients for found in _classes(method)))
    return WITHOUT_MECHANISM.get(used, "")


def _classes(method: str) -> list[Any]:
    from equivox import methods

    return [methods.get(name.strip()) for name in Choice.parse(method).name.split("+")]
