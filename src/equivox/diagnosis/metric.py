"""Metrics of a task's predictions, and intervals over the samples of one network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.errors import nearest
from equivox.task import Dense, Regression

if TYPE_CHECKING:
    from equivox.task import Task

RESAMPLES = 1000

FEW = 100
"""Resamples of a metric that is no mean and must be made anew for each: enough for a standard
error (Efron and Tibshirani, 1993, chapter 6)."""

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


def _as_it_is(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are, of which more is better.

    Attributes:
        name: by which it is asked for.
        label: in words.
        of: of (predictions, target), (samples,) values whose mean it is or, where it is no mean
            over the samples, the number itself, ().
        mean: which of the two.
        reads: the predictions, of the logits (samples, outputs, …); by default the logits.
        accuracy_like: whether the verdict's thresholds, which are those of an accuracy, apply.
        ends: the least and the most that it can be.

    >>> of = Metric("mine", "my metric", lambda logits, target: -(logits[:, 0] - target).abs())
    >>> of.value(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0]))
    -0.5
    """

    name: str
    label: str
    of: Callable[[Tensor, Any], Tensor]
    mean: bool = True
    reads: Callable[[Tensor], Tensor] = _as_it_is
    accuracy_like: bool = True
    ends: tuple[float, float] = (-math.inf, math.inf)

    def parts(self, logits: Tensor, target: Any) -> Tensor:
        """Numbers to add, to subtract and to average before `estimate`, in float64.

        (samples,) values or, where it is no mean, (1 + resamples,): the metric of all samples, then
        that of each resample, which are the same for all predictions of as many samples; NaN for
        none.
        """
        said = self.reads(logits)
        if self.mean:
            return self.of(said, target).double()
        if not len(said):
            return torch.full((1 + FEW,), torch.nan, dtype=torch.float64)
        drawn = [self.of(said[rows], target[rows]) for rows in _rows(len(said))]
        return torch.stack([self.of(said, target), *drawn]).double()

    def whole(self, parts: Tensor) -> Tensor:
        """() the number itself."""
        return parts.mean() if self.mean else parts[0]

    def estimate(self, parts: Tensor) -> Estimate:
        """The number with its interval: see `estimate`; 1.96 standard errors where it is no mean.

        No interval where the metric is undefined on a resample.
        """
        if self.mean:
            return estimate(parts)
        value, half = float(parts[0]), 1.96 * float(parts[1:].std())
        return Estimate(value, value - half, value + half)

    def room(self, value: float) -> tuple[float, float]:
        """What a value can still fall (negative) and rise by."""
        least, most = self.ends
        return least - value, most - value

    def value(self, logits: Tensor, target: Any) -> float:
        """The number itself."""
        found = self.of(self.reads(logits), target)
        return float(found.double().mean() if self.mean else found)


def metric_of(task: Task, name: str | Metric | None = None) -> Metric:
    """The metric of a task by its name, by default the one that its methods are judged by.

    :raises ValueError: For a name that the task does not have.

    >>> from equivox import Classification
    >>> metric_of(Classification(2), "f1").label
    'macro F1'
    """
    from equivox.diagnosis.known_metrics import metrics_of

    if isinstance(name, Metric):
        return name
    known = metrics_of(task)
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise ValueError(
            f"`metric` should be one of `{type(task).__name__}`: {', '.join(known)}. Found "
            f"`{name}`. {nearest(name, known)}"
        )
    return known[name]


def merits(task: Task, logits: Tensor, target: Any) -> Tensor:
    """(samples,) values whose mean is the usual metric: what every sample adds to it, in float64.

    `task.correct`; for regression 1 - error^2 / variance of the target, whose mean is R2, averaged
    over the outputs that vary, and NaN where none does. For dense prediction without the samples
    of which no position counts.

    >>> merits(Regression(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    tensor([1., 0.], dtype=torch.float64)
    """
    if not isinstance(task, Regression):
        return task.correct(*counting(task, logits, target)).double()
    return (1 - errors(logits, target)).mean(1)


def counting(task: Task, logits: Tensor, target: Any) -> tuple[Tensor, Any]:
    """The logits and targets of the samples that can be judged: where a position counts."""
    if not isinstance(task, Dense):
        return logits, target
    kept = (target != task.ignore_index).flatten(1).any(1)
    return logits[kept], target[kept]


def errors(logits: Tensor, target: Tensor) -> Tensor:
    """(samples, outputs that vary) error^2 / variance of the target."""
    y = columns(target)
    squares = (y - logits.reshape(y.shape).double()).square()
    return (squares / variance(y))[:, varying(y)]


def columns(target: Tensor) -> Tensor:
    """(samples, outputs) of the target of a regression, in float64."""
    return (target.flatten(1) if target.ndim > 1 else target[:, None]).double()


def variance(y: Tensor) -> Tensor:
    """(outputs,) over (samples, outputs); NaN for a constant, of which R2 says nothing."""
    return torch.where(varying(y), (y - y.mean(0)).square().mean(0), torch.nan)


def varying(y: Tensor) -> Tensor:
    """(outputs,) whether the samples (samples, outputs) differ; what is not a number does."""
    return (y != y[:1]).any(0)


def value(task: Task, logits: Tensor, target: Any) -> float:
    """The usual metric of a task: R2 for regression, the mean of `task.correct` otherwise.

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
    drawn = torch.zeros(RESAMPLES, count)
    ones = torch.ones(count)
    generator = torch.Generator().manual_seed(seed)
    for row in drawn:
        row.index_add_(0, torch.randint(count, (count,), generator=generator), ones)
    return drawn


def _rows(count: int) -> list[Tensor]:
    """The rows of a few resamples."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(count, (count,), generator=generator) for _ in range(FEW)]
