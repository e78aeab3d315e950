"""Weights of losses by how well learning them generalises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def gain_per_overfitting(
    before: Float[Tensor, "losses 2"],
    after: Float[Tensor, "losses 2"],
    eps: float = 1e-8,
    sign: str = "clip",
    delta: bool = True,
) -> Float[Tensor, " losses"]:
    """Gain / overfitting² of each loss, from its training and hold-out values around a probe.

    With G = L^V(before) - L^V(after) and O the change of L^V - L^T: max(G, 0) / max(O², eps), or
    |G| for `sign="abs"`. With `delta=False`: L^V / (L^V - L^T)² after the probe, where a negative
    difference counts as 1e-4.

    Source: What Makes Training Multi-modal Classification Networks Hard? (CVPR 2020).

    >>> gain_per_overfitting(torch.tensor([[1.2, 1.3]]), torch.tensor([[0.4, 1.0]]))
    tensor([1.2000])
    """
    gap = after[:, 1] - after[:, 0]
    if not delta:
        return after[:, 1] / torch.where(gap < 0, 1e-4, gap).square().clamp(min=eps)
    overfitting = gap - (before[:, 1] - before[:, 0])
    gain = before[:, 1] - after[:, 1]
    gain = gain.abs() if sign == "abs" else gain.clamp(min=0)
    return gain / overfitting.square().clamp(min=eps)


def blend(raw: Float[Tensor, " losses"], w_max: float | None = None) -> Float[Tensor, " losses"]:
    """The weights w_k = raw_k / sum raw, uniform where all are zero.

    `w_max` mixes in as much of the uniform weights as brings the largest one down to it.

    >>> blend(torch.tensor([1.2, 50.0, 3.125]))
    tensor([0.0221, 0.9204, 0.0575])
    """
    uniform = torch.full_like(raw, 1 / len(raw))
    total = raw.sum()
    weights = torch.where(total > 0, raw / total, uniform)
    if w_max is None:
        return weights
    top = weights.max()
    share = (top - w_max) / (top - uniform[0]).clamp(min=1e-12)
    return torch.lerp(weights, uniform, share.clamp(0, 1))
