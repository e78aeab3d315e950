"""What each modality contributes to the metric: Shapley values over subsets of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from equivox.diagnosis.answers import Answers, Subset
from equivox.diagnosis.metric import Estimate, Metric, merits, metric_of
from equivox.functional.shapley import (
    SampledShapley,
    imbalance,
    interactions,
    sampled_shapley_values,
    shapley_values,
)


@dataclass(frozen=True)
class Contribution:
    """Shapley values of the metric, under one way of blanking.

    Attributes: `values` of each modality, which add up to the metric of all minus that of none;
    `interaction` of each pair "a + b", positive for synergy and negative for redundancy, empty
    where the values are sampled; `imbalance`, the mean of |phi_i - phi_j| over the pairs, and
    `relative`, that over the sum of |phi_m|; `subsets`, the metric of each subset "a + b" that was
    looked at, "" for none.
    """

    blanking: str
    values: Mapping[str, Estimate]
    interaction: Mapping[str, float]
    imbalance: float
    relative: float
    subsets: Mapping[str, float]

    @property
    def sampled(self) -> bool:
        """Whether there were too many modalities to look at all subsets."""
        return len(self.subsets) < 2 ** len(self.values)

    def to_json(self) -> dict[str, Any]:
        """The contribution in plain values."""
        return asdict(self)


def contribution(
    answers: Answers, blanking: str = "zero", metric: Metric | None = None
) -> Contribution:
    """The Shapley values of the metric, in its units, with intervals over the samples.

    Exact for up to eight modalities. Of more they are means over random orders in which modalities
    enter, and the intervals hold the chance of the orders as well: their standard errors and those
    over the samples are added in squares.

    :param metric: By default the task's usual one.

    Source: Shapley (1953); permutation sampling, Castro et al. (2009). The imbalance degree is
    ours, after BalanceBenchmark (arXiv 2502.10816), which does not define it: see
    `functional.imbalance`. It blanks inputs, here it is features that are blanked.
    """
    names, metric = answers.modalities, metric or metric_of(answers.task)
    parts = {s: metric.parts(z, answers.target) for s, z in answers.logits[blanking].items()}
    whole = {subset: metric.whole(x) for subset, x in parts.items()}
    phi, error = _values(answers, parts), _values(answers, whole).standard_error
    unequal = imbalance({m: metric.whole(x) for m, x in phi.values.items()})
    pairs = {} if answers.orders else interactions(whole, names)
    return Contribution(
        blanking,
        {m: _wider(metric.estimate(x), 1.96 * float(error[m])) for m, x in phi.values.items()},
        {f"{a} + {b}": float(x) for (a, b), x in pairs.items()},
        float(unequal.absolute),
        float(unequal.relative),
        {" + ".join(m for m in names if m in s): float(x) for s, x in whole.items()},
    )


def sample_contributions(answers: Answers, blanking: str = "zero") -> dict[str, Tensor]:
    """Each modality's Shapley value of every sample's part of the usual metric, (samples,).

    Their mean is the modality's contribution.
    """
    task, target = answers.task, answers.target
    rows = {s: merits(task, z, target) for s, z in answers.logits[blanking].items()}
    return _values(answers, rows).values


def _values(answers: Answers, values: Mapping[Subset, Tensor]) -> SampledShapley:
    """Shapley values with their standard errors over the orders, zero where there are none."""
    names = answers.modalities
    if answers.orders:
        return sampled_shapley_values(values.__getitem__, names, answers.orders)
    exact = shapley_values(values, names)
    return SampledShapley(exact, {m: x.new_zeros(()) for m, x in exact.items()})


def _wider(found: Estimate, half: float) -> Estimate:
    """The estimate with another cause of error, of half an interval's width."""
    low, high = found.value - found.low, found.high - found.value
    return Estimate(
        found.value, found.value - math.hypot(low, half), found.value + math.hypot(high, half)
    )
