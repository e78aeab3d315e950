"""What a prediction says of every outcome: log-probabilities of classes, or of each label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.functional.precision import at_least_float32
from equivox.task import Dense

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped

    from equivox.task import Task


def log_probabilities(
    logits: Float[Tensor, "batch outputs *space"], independent: bool = False
) -> Float[Tensor, "batch outcomes *positions"]:
    """Log-probabilities with the outcomes along axis 1 and one column a decision, in float32.

    Classes exclude each other: the log-softmax over axis 1. Independent labels are as many
    decisions of the outcomes "no" and "yes": (batch, labels) becomes (batch, 2, labels).

    >>> log_probabilities(torch.zeros(1, 4)).exp()
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    >>> log_probabilities(torch.zeros(1, 3), independent=True).shape
    torch.Size([1, 2, 3])
    """
    wide = at_least_float32(logits)
    if independent:
        return torch.stack([F.logsigmoid(-wide), F.logsigmoid(wide)], 1)
    return torch.log_softmax(wide, dim=1)


def of_truth(
    log_p: Float[Tensor, "batch outcomes *positions"],
    truth: Int[Tensor, " batch *positions"],
    valid: Bool[Tensor, " batch *positions"] | None = None,
) -> Float[Tensor, " batch *positions"]:
    """The entry of the true outcome of every decision; of the first one outside `valid`.

    >>> of_truth(torch.tensor([[-0.1, -2.4]]), torch.tensor([1]))
    tensor([-2.4000])
    """
    known = truth if valid is None else torch.where(valid, truth, 0)
    return log_p.gather(1, known.unsqueeze(1)).squeeze(1)


def row_means(
    x: Float[Tensor, " batch *positions"], valid: Bool[Tensor, " batch *positions"] | None = None
) -> Float[Tensor, " batch"]:
    """The mean over a sample's decisions, over its valid ones where `valid` is given.

    A sample without a valid decision has the mean zero.

    >>> row_means(torch.tensor([[1.0, 3.0]]), torch.tensor([[True, False]]))
    tensor([1.])
    """
    flat = x.reshape(len(x), -1)
    if valid is None:
        return flat.mean(1)
    counted = valid.reshape(len(x), -1)
    return torch.where(counted, flat, 0).sum(1) / counted.sum(1).clamp(min=1)


def valid_decisions(
    task: Task, target: Shaped[Tensor, " batch *positions"]
) -> Bool[Tensor, " batch *positions"] | None:
    """Which positions of a dense target count; None for other tasks, of which all decisions do.

    >>> valid_decisions(Dense(ignore_index=255), torch.tensor([[0, 255]]))
    tensor([[ True, False]])
    """
    return target != task.ignore_index if isinstance(task, Dense) else None
