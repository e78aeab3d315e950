"""Whether the network uses a modality: interventions that leave the others as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.answers import Answers, differ, partners
from equivox.diagnosis.headroom import late_fusion
from equivox.diagnosis.metric import Estimate, columns, estimate, merits, variance
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
    with the own modality minus `mispaired`.
    """

    divergence: Estimate
    mispaired: Estimate
    drop: Estimate

    def to_json(self) -> dict[str, Any]:
        """The use in plain values."""
        return asdict(self)


def use(answers: Answers) -> dict[str, Use]:
    """What exchanging each modality inside the batch does to the network's prediction.

    Source: the perceptual score (Gat et al., 2021) and the mispairing tests of multimodal use.
    """
    found = answers.rows(answers.unlike)
    exchanged = {m: found.without(m, "shuffle") for m in found.modalities}
    return {m: _use(found.task, found.target, found.whole, z) for m, z in exchanged.items()}


def use_in_late_fusion(task: Task, target: Any, alone: Mapping[str, Tensor]) -> dict[str, Use]:
    """The same for the mean of the unimodal models' probabilities.

    It listens to each modality as far as it is sure of itself: what the network would do that
    neglects none. A weak modality moves it little as well.

    :param alone: Each modality's logits (samples, outputs) of a model trained alone.
    """
    count = len(next(iter(alone.values())))
    partner = partners(count, torch.Generator().manual_seed(0))
    unlike = differ(target, partner)
    own = late_fusion(task, alone)[unlike]
    exchanged = {m: late_fusion(task, {**alone, m: z[partner]})[unlike] for m, z in alone.items()}
    return {m: _use(task, target[unlike], own, z) for m, z in exchanged.items()}


def _use(task: Task, target: Tensor, own: Tensor, exchanged: Tensor) -> Use:
    mispaired = merits(task, exchanged, target)
    drop = merits(task, own, target) - mispaired
    changed = change(task, target, own, exchanged)
    return Use(estimate(changed), estimate(mispaired), estimate(drop))


def change(task: Task, target: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """(samples,) how far two predictions are apart: Jensen-Shannon in bits, 0 to 1.

    For regression the squared difference over the variance of the target, averaged over outputs.
    """
    if isinstance(task, Regression):
        moved = columns(one) - columns(other)
        return (moved.square() / variance(columns(target))).mean(1)
    labels = isinstance(task, MultiLabel)
    log_p, log_q = (log_probabilities(z.double(), labels) for z in (one, other))
    divergence = js_divergence(log_p, log_q) / math.log(2)
    return divergence.flatten(1).mean(1) if divergence.ndim > 1 else divergence


@dataclass(frozen=True)
class Route:
    """The samples that a certain set of modalities answers rightly, each by itself.

    Attributes: `right`, these modalities, empty where none is right; `share` of all samples;
    `samples`, their number; `metric` of the fused network on them.
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

    Where one alone is right, being right is routing; where none is, it is synergy.

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
    routes = []
    for size in range(len(right), -1, -1):
        for names in combinations(right, size):
            here = torch.stack([r if m in names else ~r for m, r in right.items()]).all(0)
            if count := int(here.sum()):
                share = count / len(here)
                routes.append(Route(names, share, count, estimate(fused[here])))
    return routes
