"""Calibration: whether a network is as often right as it is sure, whatever modalities it sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equivox.diagnosis.answers import Answers
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.shares import share
from equivox.functional.confidence import confidence
from equivox.functional.labels import class_numbers
from equivox.functional.outcomes import log_probabilities, valid_decisions
from equivox.task import Classification, MultiLabel, Regression, Task

BINS = 15
"""Equal-width bins of confidence, as in Guo et al. (2017)."""

ROUNDING = 1e-6
"""A rise of confidence below this is the arithmetic's, not the network's."""


@dataclass(frozen=True)
class Calibration:
    """How far confidence can be trusted, under one way of blanking.

    Attributes: `error`, the expected calibration error, in [0, 1], of each subset of the modalities
    "a + b", "" for none; `violations`, by modality, the share of the samples for which the
    confidence rises when it is removed from all the others. Both empty for regression, which has no
    confidence; `violations` also for a single modality, whose removal leaves nothing.
    """

    blanking: str
    error: Mapping[str, float]
    violations: Mapping[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """The calibration in plain values."""
        return asdict(self)


def calibration(answers: Answers, blanking: str = "zero") -> Calibration:
    """The calibration error of every subset, and how often confidence rises with less to go by.

    Confidence is the probability of the likeliest class, and of each decision for labels and
    positions. Samples whose logits are not finite are left out.

    Source: the error of Guo et al. (ICML 2017); the violations of Ma et al., Calibrating
    Multimodal Learning (ICML 2023): more modalities should never make a prediction less sure.
    """
    if isinstance(answers.task, Regression):
        return Calibration(blanking, {}, {})
    names, task, target = answers.modalities, answers.task, answers.target
    errors = {
        " + ".join(m for m in names if m in subset): calibration_error(*decisions(task, z, target))
        for subset, z in answers.logits[blanking].items()
    }
    several = names if len(names) > 1 else ()
    return Calibration(blanking, errors, {m: _violations(answers, m, blanking) for m in several})


def calibration_error(sure: Tensor, right: Tensor, bins: int = BINS) -> float:
    """ECE = sum over bins of n_b / n |accuracy_b - confidence_b|, bins (b / bins, (b + 1) / bins].

    :param sure: (decisions,) confidences in [0, 1].
    :param right: (decisions,) whether each is right.
    :returns: NaN where there is no decision.

    >>> calibration_error(torch.tensor([0.75, 0.75]), torch.tensor([True, False]))
    0.25
    """
    if not len(sure):
        return math.nan
    place = ((sure.double() * bins).ceil().long() - 1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64)
    gaps.index_add_(0, place.cpu(), (right.double() - sure.double()).cpu())
    return float(gaps.abs().sum() / len(sure))


def decisions(task: Task, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(decisions,) confidences and whether they are right, of all samples.

    One decision a sample, a label or a valid position; those of non-finite logits are left out.
    """
    labels = isinstance(task, MultiLabel)
    best = log_probabilities(logits.double(), labels).max(1)
    truth = class_numbers(target) if isinstance(task, Classification) else target
    right = best.indices == (truth > 0.5 if labels else truth).long()
    counted = best.values.isfinite()
    if (valid := valid_decisions(task, truth)) is not None:
        counted &= valid
    return best.values.exp()[counted], right[counted]


def _violations(answers: Answers, modality: str, blanking: str) -> Estimate:
    """The share of the samples whose confidence rises without the modality."""
    pair = (answers.whole, answers.without(modality, blanking))
    all_, fewer = (confidence(z.double(), answers.target, answers.task) for z in pair)
    known = all_.isfinite() & fewer.isfinite()
    return share((fewer > all_ + ROUNDING)[known])
