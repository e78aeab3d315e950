"""What each modality contributes to the metric: Shapley values over all subsets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from equivox.diagnosis.answers import Answers, Subset
from equivox.diagnosis.metric import Estimate, estimate, merits
from equivox.functional.shapley import imbalance, interactions, shapley_values


@dataclass(frozen=True)
class Contribution:
    """Shapley values of the metric, under one way of blanking.

    Attributes: `values` of each modality, which add up to the metric of all minus that of none;
    `interaction` of each pair "a + b", positive for synergy and negative for redundancy;
    `imbalance`, the mean of |phi_i - phi_j| over the pairs, and `relative`, that over the sum of
    |phi_m|; `subsets`, the metric of each subset "a + b", "" for none.
    """

    blanking: str
    values: Mapping[str, Estimate]
    interaction: Mapping[str, float]
    imbalance: float
    relative: float
    subsets: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The contribution in plain values."""
        return asdict(self)


def contribution(answers: Answers, blanking: str = "zero") -> Contribution:
    """The exact Shapley values of the metric, in its units, with intervals over the samples.

    Source: Shapley (1953); the imbalance degree of BalanceBenchmark (arXiv 2502.10816), as
    `functional.imbalance` defines it.
    """
    names = answers.modalities
    rows = _merits(answers, blanking)
    whole = {subset: x.mean() for subset, x in rows.items()}
    unequal = imbalance(shapley_values(whole, names))
    return Contribution(
        blanking,
        {m: estimate(phi) for m, phi in shapley_values(rows, names).items()},
        {f"{a} + {b}": float(x) for (a, b), x in interactions(whole, names).items()},
        float(unequal.absolute),
        float(unequal.relative),
        {" + ".join(m for m in names if m in s): float(x) for s, x in whole.items()},
    )


def sample_contributions(answers: Answers, blanking: str = "zero") -> dict[str, Tensor]:
    """Each modality's Shapley value of every sample's part of the metric, (samples,).

    Their mean is the modality's contribution.
    """
    return shapley_values(_merits(answers, blanking), answers.modalities)


def _merits(answers: Answers, blanking: str) -> dict[Subset, Tensor]:
    task, target = answers.task, answers.target
    return {s: merits(task, z, target) for s, z in answers.logits[blanking].items()}
