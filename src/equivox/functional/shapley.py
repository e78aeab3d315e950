"""Shapley values and interactions of modalities, for value functions of any tensor shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def subsets(modalities: Sequence[str]) -> tuple[frozenset[str], ...]:
    """All 2^M subsets of the modalities, the empty one first, smaller ones before larger ones.

    >>> [sorted(subset) for subset in subsets(["audio", "video"])]
    [[], ['audio'], ['video'], ['audio', 'video']]
    """
    if len(set(modalities)) != len(modalities):
        raise ValueError(f"Modalities should have distinct names. Found {list(modalities)}.")
    sizes = range(len(modalities) + 1)
    return tuple(frozenset(c) for size in sizes for c in combinations(modalities, size))


def shapley_values(
    values: Mapping[frozenset[str], Float[Tensor, "*shape"]], modalities: Sequence[str]
) -> dict[str, Float[Tensor, "*shape"]]:
    """What each modality contributes to the value of them all, exactly, in any number.

    phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! [v(S + m) - v(S)], so that the phi_m
    add up to v(all) - v(empty). Differentiable in the values.

    :param values: v(S) for each of the `subsets`: an accuracy (), a value for each sample (batch,),
        logits (batch, classes), … A missing empty set counts as zero.
    :param modalities: The names of the M modalities.
    :raises ValueError: If the value of another subset is missing.

    >>> v = {"": 0.10, "a": 0.55, "v": 0.30, "av": 0.65}
    >>> shapley_values({frozenset(s): torch.tensor(x) for s, x in v.items()}, ["a", "v"])
    {'a': tensor(0.4000), 'v': tensor(0.1500)}
    """
    v = _complete(values, modalities)
    count = len(modalities)

    def value_of(modality: str) -> Tensor:
        terms = [
            (v[s | {modality}] - v[s]) / (count * comb(count - 1, len(s)))
            for s in subsets(_without(modalities, modality))
        ]
        return torch.stack(terms).sum(0)

    return {modality: value_of(modality) for modality in modalities}


def interactions(
    values: Mapping[frozenset[str], Float[Tensor, "*shape"]], modalities: Sequence[str]
) -> dict[tuple[str, str], Float[Tensor, "*shape"]]:
    """How much each pair of modalities is worth together beyond what both are worth apart.

    The Shapley interaction index: I_ij = sum over S without i, j of
    |S|! (M - |S| - 2)! / (M - 1)! [v(S + i + j) - v(S + i) - v(S + j) + v(S)].
    Positive is synergy, negative redundancy, zero additivity. Arguments as in `shapley_values`.

    :returns: One entry for each pair, named in the order of `modalities`.
    """
    v = _complete(values, modalities)
    count = len(modalities)

    def value_of(i: str, j: str) -> Tensor:
        terms = [
            (v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s])
            / ((count - 1) * comb(count - 2, len(s)))
            for s in subsets(_without(modalities, i, j))
        ]
        return torch.stack(terms).sum(0)

    return {(i, j): value_of(i, j) for i, j in combinations(modalities, 2)}


class Imbalance(NamedTuple):
    """How unequal contributions are; each zero where they are equal."""

    absolute: Tensor
    """I: the mean of |phi_i - phi_j| over all pairs."""
    relative: Tensor
    """I over the sum of |phi_m|, so that a weak model is not called balanced for being weak."""
    spread: Tensor
    """The largest contribution minus the smallest."""


def imbalance(phi: Mapping[str, Float[Tensor, "*shape"]]) -> Imbalance:
    """How unequal the contributions `phi` of the modalities are.

    >>> result = imbalance({"audio": torch.tensor(0.40), "video": torch.tensor(0.15)})
    >>> [round(float(x), 4) for x in result]
    [0.25, 0.4545, 0.25]
    """
    stacked = torch.stack(list(phi.values()))  # (modalities, *shape)
    count = len(stacked)
    differences = (stacked[:, None] - stacked[None]).abs().sum((0, 1))  # each pair twice
    absolute = differences / max(count * (count - 1), 1)
    total = stacked.abs().sum(0)
    relative = torch.where(total > 0, absolute / total.where(total > 0, 1), 0)
    return Imbalance(absolute, relative, stacked.amax(0) - stacked.amin(0))


class SampledShapley(NamedTuple):
    """Estimated Shapley values and how far off they may be."""

    values: dict[str, Tensor]
    standard_error: dict[str, Tensor]


def orders(
    modalities: Sequence[str], count: int, generator: torch.Generator | None = None
) -> tuple[tuple[str, ...], ...]:
    """Orders in which the modalities enter, at random.

    :param count: At least two, or there is no standard error.
    :param generator: A CPU generator.
    """
    if count < 2:
        raise ValueError(f"`permutations` should be at least 2. Found `permutations = {count}`.")
    drawn = (torch.randperm(len(modalities), generator=generator) for _ in range(count))
    return tuple(tuple(modalities[i] for i in order.tolist()) for order in drawn)


def sampled_shapley_values(
    value: Callable[[frozenset[str]], Float[Tensor, "*shape"]],
    modalities: Sequence[str],
    permutations: int | Sequence[Sequence[str]],
    generator: torch.Generator | None = None,
) -> SampledShapley:
    """Estimate the Shapley values of many modalities, where 2^M subsets are too many.

    Modalities enter one after another in random order; a modality's value is its mean gain over
    the orders, unbiased, and the gains of an order add up to v(all) - v(empty).

    :param value: v(S), called once for each subset met: at most M + 1 for each order, the empty
        set included.
    :param permutations: The number of orders drawn, at least two, or the `orders` themselves.
    :param generator: A CPU generator for the orders.
    :raises ValueError: If `permutations` is below two, which leaves no standard error.
    """
    if isinstance(permutations, int):
        permutations = orders(modalities, permutations, generator)
    known: dict[frozenset[str], Tensor] = {}

    def v(subset: frozenset[str]) -> Tensor:
        if subset not in known:
            known[subset] = value(subset)
        return known[subset]

    gains: dict[str, list[Tensor]] = {modality: [] for modality in modalities}
    for order in permutations:
        entered: frozenset[str] = frozenset()
        for modality in order:
            gains[modality].append(v(entered | {modality}) - v(entered))
            entered |= {modality}
    stacked = {modality: torch.stack(rows) for modality, rows in gains.items()}
    return SampledShapley(
        {modality: rows.mean(0) for modality, rows in stacked.items()},
        {modality: rows.std(0) / len(permutations) ** 0.5 for modality, rows in stacked.items()},
    )


def _without(modalities: Sequence[str], *left_out: str) -> list[str]:
    return [modality for modality in modalities if modality not in left_out]


def _complete(
    values: Mapping[frozenset[str], Tensor], modalities: Sequence[str]
) -> dict[frozenset[str], Tensor]:
    missing = [s for s in subsets(modalities) if s and s not in values]
    if missing:
        raise ValueError(
            "Exact Shapley values need the value of every non-empty subset of the modalities. "
            f"Found none of {[sorted(s) for s in missing]}."
        )
    empty = torch.zeros_like(values[frozenset(modalities)])
    return {frozenset(): empty, **values}
