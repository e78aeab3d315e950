"""What the labels alone cost: the loss of the best constant prediction, H(Y) for classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.task import Dense, MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.task import Task


def label_facts(task: Task, logits: Tensor, target: Any) -> Float[Tensor, "batch facts"]:
    """Rows whose mean over samples gives `constant_loss`: class indicators, or y and y².

    >>> from equivox import Classification
    >>> label_facts(Classification(), torch.zeros(2, 2), torch.tensor([1, 0]))
    tensor([[0., 1.],
            [1., 0.]])
    """
    if isinstance(task, Regression):
        y = target.float().reshape(len(target), -1)
        return torch.cat([y, y * y], 1)
    if isinstance(task, MultiLabel) or target.is_floating_point():
        rows: Tensor = target.float()
        return rows
    classes = torch.arange(logits.shape[1], device=target.device)
    hits = (target.reshape(len(target), -1, 1) == classes).float()
    valid = target != task.ignore_index if isinstance(task, Dense) else torch.ones_like(target)
    counts = valid.reshape(len(target), -1).sum(1, keepdim=True).clamp(min=1)
    return hits.sum(1) / counts


def constant_loss(task: Task, means: Float[Tensor, " facts"]) -> Float[Tensor, ""]:
    """The loss of the best constant: label entropy in nats, or the variance for regression.

    >>> from equivox import Classification
    >>> constant_loss(Classification(), torch.tensor([0.75, 0.25]))
    tensor(0.5623)
    """
    if isinstance(task, Regression):
        first, second = means.chunk(2)
        return (second - first * first).clamp(min=0).mean()
    if isinstance(task, MultiLabel):
        return -(torch.xlogy(means, means) + torch.xlogy(1 - means, 1 - means)).mean()
    p = means / means.sum().clamp(min=1e-12)
    return -torch.xlogy(p, p).sum()
