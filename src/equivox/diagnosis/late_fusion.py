"""A late fusion: what models of one modality each say together, by Bayes' rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.diagnosis.metric import columns
from equivox.functional.labels import class_counts
from equivox.methods.yardstick.ensemble import best_temperature
from equivox.task import Classification, Dense, MultiLabel, Regression

if TYPE_CHECKING:
    from equivox.task import Task


@dataclass(frozen=True)
class LateFusion:
    """The sum of the modalities' logits, each as far as it is to be trusted.

    log p(y | all) = sum_m log p(y | m) - (M - 1) log p(y) + const, exact for modalities that are
    independent given the target. With p(y | m) = softmax(z_m / T_m) this is linear in the logits,
    as it is for regression, where p(y | m) is normal with the variance of the model's errors.

    Attributes: `weights` of each modality's logits (1 / T_m; for regression its share of the
    precision, by output); `offset` by output, from p(y).
    """

    weights: Mapping[str, Tensor]
    offset: Tensor

    def __call__(self, alone: Mapping[str, Tensor]) -> Tensor:
        """The logits of all, from each modality's (samples, outputs, …)."""
        parts = [self.weights[m] * z for m, z in alone.items()]
        total = torch.stack(parts).sum(0)
        return total + self.offset.to(total).view(-1, *[1] * (total.ndim - 2))


def late_fusion(task: Task, alone: Mapping[str, Tensor], target: Tensor) -> LateFusion:
    """The late fusion whose temperatures and p(y) are those of held-out data.

    A temperature is the one with the least loss, as in Guo et al. (ICML 2017); p(y) counts every
    class once more than it occurs. Tasks of other kinds get the mean of the logits.

    :param alone: Each modality's logits (samples, outputs, …) on the validation data.
    :param target: Theirs.
    """
    if isinstance(task, Regression):
        return _of_numbers(alone, target)
    if not isinstance(task, Classification | MultiLabel | Dense):
        return LateFusion(dict.fromkeys(alone, torch.tensor(1 / len(alone))), torch.zeros(1))
    weights = {m: 1 / best_temperature(task, z, target) for m, z in alone.items()}
    prior = task.logits(_prior(task, target, next(iter(alone.values())).shape[1]))
    return LateFusion(weights, (1 - len(alone)) * prior)


def _of_numbers(alone: Mapping[str, Tensor], target: Tensor) -> LateFusion:
    """The mean of the product of normal distributions over that of the target, by output."""
    y = columns(target)
    spread = y.var(0, correction=0).clamp(min=1e-12)
    errors = {m: (z.reshape(y.shape) - y).square().mean(0) for m, z in alone.items()}
    # A model that is worse than the mean of the target says nothing.
    trust = {m: torch.where(e < spread, 1 / e.clamp(min=1e-12), 0) for m, e in errors.items()}
    each = torch.stack([*trust.values()])
    known = ((each > 0).sum(0) - 1) / spread
    whole = each.sum(0) - known
    return LateFusion({m: t / whole for m, t in trust.items()}, -known / whole * y.mean(0))


def _prior(task: Task, target: Tensor, outputs: int) -> Tensor:
    """(outputs,) how often each class or label occurs."""
    counts = class_counts(task, target, outputs) + 1
    return counts / ((len(target) + 2) if isinstance(task, MultiLabel) else counts.sum())
