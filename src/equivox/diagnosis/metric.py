"""The metric of a task as a mean over samples, and intervals over the samples of one network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.task import Regression

if TYPE_CHECKING:
    from equivox.task import Task

RESAMPLES = 1000

MANY = 10_000
"""Rows above which the mean of resamples is taken for normal, as it then is."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over the samples; not over seeds: it is one network."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """The estimate in plain values."""
        return asdict(self)

    @property
    def half(self) -> float:
        """The distance from the value to the farther end."""
        return max(self.high - self.value, self.value - self.low)


def merits(task: Task, logits: Tensor, target: Any) -> Tensor:
    """(samples,) values whose mean is the metric: what every sample adds to it, in float64.

    `task.correct`; for regression 1 - error^2 / variance of the target, whose mean is R2, averaged
    over the outputs.

    >>> merits(Regression(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    tensor([1., 0.], dtype=torch.float64)
    """
    if not isinstance(task, Regression):
        return task.correct(logits, target).double()
    y = columns(target)
    squares = (y - logits.reshape(y.shape).double()).square()
    return (1 - squares / variance(y)).mean(1)


def columns(target: Tensor) -> Tensor:
    """(samples, outputs) of the target of a regression, in float64."""
    return (target.flatten(1) if target.ndim > 1 else target[:, None]).double()


def variance(y: Tensor) -> Tensor:
    """(outputs,) over (samples, outputs); NaN for a constant, of which R2 says nothing."""
    found = (y - y.mean(0)).square().mean(0)
    return torch.where(found > 0, found, torch.nan)


def value(task: Task, logits: Tensor, target: Any) -> float:
    """The metric of a task: R2 for regression, the mean of `task.correct` otherwise.

    >>> value(Regression(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    0.5
    """
    return float(merits(task, logits, target).mean())


def estimate(rows: Tensor, seed: int = 0) -> Estimate:
    """The mean of (samples,) rows with a bootstrap interval over the samples.

    Percentiles of 1,000 resamples, for more than 10,000 rows 1.96 standard errors; NaN for no
    samples, no width for one, and no interval where a row is not finite.
    """
    x = rows.detach().double().cpu()
    if not len(x):
        return Estimate(math.nan, math.nan, math.nan)
    mean = float(x.mean())
    if not bool(x.isfinite().all()):
        return Estimate(mean, math.nan, math.nan)
    if len(x) > MANY:
        half = 1.96 * float(x.std(correction=0)) / math.sqrt(len(x))
        return Estimate(mean, mean - half, mean + half)
    # Equal rows have no width, whatever the arithmetic: the means are those of the deviations.
    moved = (resamples(len(x), seed) @ (x - mean).float()).double() / len(x)
    low, high = moved.quantile(torch.tensor([0.025, 0.975], dtype=x.dtype)).tolist()
    return Estimate(mean, mean + low, mean + high)


@lru_cache(maxsize=2)
def resamples(count: int, seed: int) -> Tensor:
    """(resamples, count) how often each of so many rows is drawn; the same for all estimates."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(RESAMPLES, count)
    ones = torch.ones(count)
    for row in drawn:
        row.index_add_(0, torch.randint(count, (count,), generator=generator), ones)
    return drawn
