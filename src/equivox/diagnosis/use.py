"""Whether the network uses a modality: interventions that leave the others as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.answers import Answers
from equivox.diagnosis.exchange import differ, lenders, ring
from equivox.diagnosis.late_fusion import LateFusion
from equivox.diagnosis.metric import (
    Estimate,
    Metric,
    columns,
    estimate,
    metric_of,
    variance,
    varying,
)
from equivox.diagnosis.shares import share
from equivox.functional.divergence import js_divergence
from equivox.functional.outcomes import log_probabilities
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from equivox.task import Task


@dataclass(frozen=True)
class Use:
    """How a prediction changes when one modality is exchanged for another sample's.

    Attributes: `divergence` of the prediction, Jensen-Shannon in bits, in [0, 1], averaged over the
    pairs with different targets (for regression: the squared change over the target's variance);
    `mispaired`, the metric with the exchanged modality, over the same pairs; `drop`, the metric
    with the own modality minus `mispaired`; `pairs`, how many there are, None where that is not
    known. Each sample is in two pairs, which the intervals of means allow for.
    """

    divergence: Estimate
    mispaired: Estimate
    drop: Estimate
    pairs: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The three estimates in plain values."""
        return {name: getattr(self, name).to_json() for name in ("divergence", "mispaired", "drop")}


def use(answers: Answers, metric: Metric | None = None) -> dict[str, Use]:
    """What exchanging each modality between samples does to the network's prediction.

    :param metric: By default the task's usual one.

    Source: the perceptual score (Gat et al., 2021) and the mispairing tests of multimodal use.
    """
    found = answers.rows(answers.unlike)
    exchanged = {m: found.without(m, "shuffle") for m in found.modalities}
    metric = metric or metric_of(answers.task)
    facts = (found.task, metric, found.target, found.whole)
    return {m: _use(*facts, z, found.ring) for m, z in exchanged.items()}


def use_in_late_fusion(
    task: Task,
    target: Any,
    alone: Mapping[str, Tensor],
    late: LateFusion,
    metric: Metric | None = None,
) -> dict[str, Use]:
    """The same for a late fusion of the unimodal models.

    It listens to each modality as far as it is to be trusted: what the network would do that
    neglects none. A weak modality moves it little as well.

    :param alone: Each modality's logits (samples, outputs) of a model trained alone.
    """
    places = ring(len(next(iter(alone.values()))), torch.Generator().manual_seed(0))
    partner = lenders(places)
    unlike = differ(target, partner)
    own = late(alone)[unlike]
    exchanged = {m: late({**alone, m: z[partner]})[unlike] for m, z in alone.items()}
    metric, target = metric or metric_of(task), target[unlike]
    return {m: _use(task, metric, target, own, z, places[unlike]) for m, z in exchanged.items()}


def _use(
    task: Task, metric: Metric, target: Tensor, own: Tensor, exchanged: Tensor, ring: Tensor | None
) -> Use:
    mispaired = metric.parts(exchanged, target)
    drop = metric.parts(own, target) - mispaired
    changed = change(task, target, own, exchanged)

    def of(parts: Tensor, mean: bool = metric.mean) -> Estimate:
        found = estimate(parts) if mean else metric.estimate(parts)
        return _wider(found, dependence(parts, ring)) if mean and ring is not None else found

    return Use(of(changed, mean=True), of(mispaired), of(drop), pairs=len(own))


def dependence(rows: Tensor, ring: Tensor) -> float:
    """How much less sure the mean is of rows that share a sample with the next in a ring.

    The variance of their sum over that of independent rows, one or more, is 1 + 2 sum(d_i d_j) /
    sum(d_i^2) of the deviations d from the mean, over the pairs (i, j) of neighbours.

    :param ring: (rows,) places; rows whose places follow each other share a sample.
    :returns: The square root, by which the standard error grows.
    """
    places, order = ring.sort()
    moved = (rows - rows.mean()).double()[order]
    shared = (moved[1:] * moved[:-1])[places.diff() == 1].sum()
    ratio = 2 * float(shared / moved.square().sum())
    return math.sqrt(1 + ratio) if ratio > 0 else 1.0


def _wider(found: Estimate, factor: float) -> Estimate:
    """The estimate with an interval of so many times its width."""
    low, high = found.value - found.low, found.high - found.value
    return Estimate(found.value, found.value - factor * low, found.value + factor * high)


def change(task: Task, target: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """(samples,) how far two predictions are apart: Jensen-Shannon in bits, 0 to 1.

    For regression the squared difference over the variance of the target, averaged over the outputs
    that vary.
    """
    if isinstance(task, Regression):
        y, moved = columns(target), columns(one) - columns(other)
        return (moved.square() / variance(y))[:, varying(y)].mean(1)
    labels = isinstance(task, MultiLabel)
    log_p, log_q = (log_probabilities(z.double(), labels) for z in (one, other))
    divergence = js_divergence(log_p, log_q) / math.log(2)
    return divergence.flatten(1).mean(1) if divergence.ndim > 1 else divergence


@dataclass(frozen=True)
class Route:
    """The samples that a certain set of modalities answers rightly, each by itself.

    Attributes: `right`, these modalities, empty where none is right, see `routing`; `share` of all
    samples; `samples`, their number; `metric`, the usual one of the fused network on them.
    """

    right: tuple[str, ...]
    share: float
    samples: int
    metric: Estimate

    def to_json(self) -> dict[str, Any]:
        """The route in plain values."""
        return asdict(self)


def routing(answers: Answers, alone: Mapping[str, Tensor]) -> list[Route]:
    """How the network does where both, one, or none of the unimodal models is right.

    Where one alone is right, being right is routing; where none is, it is synergy. A sample of
    several labels is answered rightly where its F1 is above one half, one of dense prediction where
    more than half of its positions are right.

    :param alone: Each modality's logits (samples, outputs) of a model trained alone, for the same
        samples in the same order; the network's own shares show what its fusion reads instead.
    :returns: One route a set of modalities that occurs, the largest sets first. Empty for
        regression, which has no right and wrong.
    """
    task, target = answers.task, answers.target
    if isinstance(task, Regression):
        return []
    fused = task.correct(answers.whole, target).double()
    right = {m: task.correct(z, target) > 0.5 for m, z in alone.items()}
    patterns, which = torch.stack([*right.values()], 1).unique(dim=0, return_inverse=True)
    routes = []
    for number, pattern in enumerate(patterns.tolist()):
        names, here = (
            tuple(m for m, is_right in zip(right, pattern, strict=True) if is_right),
            which == number,
        )
        count = int(here.sum())
        routes.append(Route(names, count / len(here), count, share(fused[here])))
    places = {m: place for place, m in enumerate(right)}
    return sorted(routes, key=lambda r: (-len(r.right), [places[m] for m in r.right]))
