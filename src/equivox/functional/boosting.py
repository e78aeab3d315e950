"""Losses of a learner that is to add what the other learners do not know yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.task import Task


def residual_losses(
    added: Float[Tensor, " batch *outputs"],
    known: Float[Tensor, " batch *outputs"],
    target: Any,
    task: Task,
    lam: float,
) -> Float[Tensor, " batch"]:
    """Every sample's loss of a learner against the residual target y - lam (y * known), a constant.

    Classification: -sum_k t_k log softmax(added)_k with t = y (1 - lam known), at least 0. Multi-
    label: binary cross entropy with such a t. Regression: the loss against y - lam `known`.

    :param known: What the other learners predict: probabilities, or a number.

    Source: sustained boosting (NeurIPS 2025); Friedman's residual for regression.

    >>> from equivox import Classification
    >>> pre, added = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.2, 0.0]])
    >>> residual_losses(added, pre.softmax(-1), torch.tensor([0]), Classification(), lam=0.5)
    tensor([0.6075])
    """
    known = known.detach()
    if isinstance(task, Regression):
        return task.loss(added, target - lam * known.view_as(target), reduction="none")
    share = (1 - lam * known).clamp(min=0)
    if isinstance(task, MultiLabel):
        wanted = target.to(known) * share
        each = F.binary_cross_entropy_with_logits(added.float(), wanted, reduction="none")
        return each.mean(-1)
    y = target  # probabilities, or class numbers; `F.one_hot` would wait for the device
    if not target.is_floating_point():
        y = torch.zeros_like(known).scatter(-1, target.unsqueeze(-1), 1.0)
    return -(y * share * added.float().log_softmax(-1)).sum(-1)


def boosting_losses(
    logits: Float[Tensor, "batch outputs"],
    others: Float[Tensor, "batch outputs"] | None,
    target: Any,
    task: Task,
    w1: float = 5.0,
    w2: float = 1.0,
    initial: float = 0.0,
) -> Float[Tensor, " batch"]:
    """Every sample's loss, with a small weight where the other learners solve it already.

    Classification: -(w1 - w2 q_y) log p_y / K, with p and q the softmax of `logits` and `others`.
    Multi-label: the same for every label, present or absent, averaged over labels. Regression: the
    loss against y - (w2 / w1) `others`. With class numbers this is w1 / K times `residual_losses`
    for lam = w2 / w1.

    :param logits: f_k of the learner that is trained.
    :param others: The summed logits of the other learners, a constant; None if this is the first.
    :param initial: What q_y is for the first.

    Source: ReconBoost (ICML 2024).

    >>> from equivox import Classification
    >>> f, phi = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    >>> boosting_losses(f, phi, torch.tensor([0]), Classification())
    tensor([0.8801])
    """
    if isinstance(task, Regression):
        known = torch.zeros_like(logits) if others is None else others
        return residual_losses(logits, known, target, task, lam=w2 / w1)
    if others is None:
        w1, w2, others = w1 - w2 * initial, 0.0, logits
    others = others.detach()
    if isinstance(task, MultiLabel):
        q = torch.where(target > 0.5, others.sigmoid(), 1 - others.sigmoid())
        each = F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none")
        return ((w1 - w2 * q) * each).mean(-1)
    q = task.score(others, target)
    return (w1 - w2 * q) * task.loss(logits, target, reduction="none") / logits.shape[-1]
