"""The metric of a task as a mean over samples, and intervals over the samples of one network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.task import Regression

if TYPE_CHECKING:
    from equivox.task import Task

RESAMPLES = 1000


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
    y = target.reshape(len(target), -1).double()
    squares = (y - logits.reshape(y.shape).double()).square()
    return (1 - squares / y.var(0, correction=0)).mean(1)


def value(task: Task, logits: Tensor, target: Any) -> float:
    """The metric of a task: R2 for regression, the mean of `task.correct` otherwise.

    >>> value(Regression(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    0.5
    """
    return float(merits(task, logits, target).mean())


def estimate(rows: Tensor, seed: int = 0) -> Estimate:
    """The mean of (samples,) rows with a bootstrap interval over the samples.

    Percentiles of 1,000 resamples; NaN for no samples, and no width for one.
    """
    x = rows.double()
    if not len(x):
        return Estimate(math.nan, math.nan, math.nan)
    generator = torch.Generator().manual_seed(seed)
    means = [
        x[torch.randint(len(x), (RESAMPLES // 10, len(x)), generator=generator).to(x.device)].mean(
            1
        )
        for _ in range(10)  # in parts, for memory's sake
    ]
    ends = torch.tensor([0.025, 0.975], dtype=x.dtype, device=x.device)
    low, high = torch.cat(means).quantile(ends).tolist()
    return Estimate(float(x.mean()), low, high)
