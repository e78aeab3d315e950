"""What is known of a method by the label that it has in a comparison."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from equivox.bench.jobs import Choice

if TYPE_CHECKING:
    from equivox.method import Method

JOINT = "joint"
YARDSTICK = "yardstick"
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
    """What a method changes, or "yardstick"; of a chain, that of the first that is none.

    >>> category("ensemble"), category("unimodal_losses+ogm_ge")
    ('yardstick', 'optimization')
    """
    found = (part.category for part in parts(method).values())
    return next((name for name in found if name != YARDSTICK), YARDSTICK)


def is_yardstick(method: str) -> bool:
    """Whether a method is a simple baseline, or a chain of nothing else."""
    return category(method) == YARDSTICK


def reference(method: str) -> str:
    """The yardstick that lacks the method's mechanism alone; empty where there is none.

    >>> reference("ogm_ge"), reference("mmpareto"), reference("ensemble")
    ('joint', 'unimodal_losses', '')
    """
    if is_yardstick(method):
        return ""
    used = frozenset().union(*(found.ingredients for found in parts(method).values()))
    return WITHOUT_MECHANISM.get(used, "")


def parts(method: str) -> dict[str, type[Method]]:
    """The methods of a chain by their names; one, where it is no chain."""
    from equivox import methods

    names = [name.strip() for name in Choice.parse(method).name.split("+")]
    return {name: methods.get(name) for name in names}
