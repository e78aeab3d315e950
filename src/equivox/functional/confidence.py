"""How sure a prediction is, and how that may change with what it is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.functional.outcomes import log_probabilities, row_means, valid_decisions
from equivox.task import MultiLabel

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

    from equivox.task import Task


def confidence(
    logits: Float[Tensor, "batch outputs *space"],
    target: Shaped[Tensor, " batch *decisions"],
    task: Task,
) -> Float[Tensor, " batch"]:
    """The probability of the likeliest outcome, averaged over a sample's labels or positions.

    :param target: Says which positions of a dense task count; nothing else of it is read.

    >>> from equivox import Classification
    >>> confidence(torch.zeros(1, 4), torch.tensor([0]), Classification())
    tensor([0.2500])
    """
    log_p = log_probabilities(logits, independent=isinstance(task, MultiLabel))
    return row_means(log_p.amax(1).exp(), valid_decisions(task, target))


def rises(
    larger: Float[Tensor, " batch"],
    smaller: Float[Tensor, " batch"],
    selected: Float[Tensor, " batch"] | None = None,
    margin: float = 0.0,
) -> Float[Tensor, " batch"]:
    """ReLU((c_smaller - c_larger) s - margin): how far confidence rises as a modality goes.

    :param larger: Confidence with more modalities.
    :param smaller: Confidence with one of them removed.
    :param selected: s, one for the samples on which the rule is enforced; default all.

    Source: Calibrating Multimodal Learning (ICML 2023).

    >>> rises(torch.tensor([0.8, 0.6]), torch.tensor([0.9, 0.5]))
    tensor([0.1000, 0.0000])
    """
    difference = smaller - larger
    return torch.relu((difference if selected is None else difference * selected) - margin)
