"""Margins and certified radii of logits that are a weighted sum over modalities (CRMT)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.features import leaves, map_tensors
from equivox.functional.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float


def row_normalised(
    v: Float[Tensor, "outputs features"], orthogonal: bool = False
) -> Float[Tensor, "outputs features"]:
    """Rows centred and of length one; with `orthogonal`, (Vc Vc^T)^(-1/2) Vc of the centred Vc.

    A constant row, which has no direction, becomes zero.

    >>> row_normalised(torch.tensor([[1.0, 0.0, 2.0]]))
    tensor([[ 0.0000, -0.7071,  0.7071]])
    """
    centred = v - v.mean(1, keepdim=True)
    if not orthogonal:
        return torch.nn.functional.normalize(centred, dim=1)
    wide = at_least_float32(centred)
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    root = vectors * values.clamp(min=1e-12).rsqrt() @ vectors.T
    return (root @ wide).to(v.dtype)


def _truth(target: Tensor) -> Tensor:
    """Class numbers (batch,), of numbers or of probabilities."""
    return target.argmax(1) if target.is_floating_point() else target.long()


def margin_loss(
    parts: Sequence[Float[Tensor, "batch outputs"]], target: Tensor, floor: float = 1e-5
) -> Float[Tensor, " batch"]:
    """log(sum_m sum_{k != y} exp(h^m_k - h^m_y) + floor), stable in float32.

    Labels (batch, outputs) of integers are each held against zero: the mean over labels of
    log(sum_m exp(-s h^m) + floor), with s = 1 where the label is true and -1 else.

    >>> margin_loss([torch.tensor([[0.0, 0.0, 0.0]])], torch.tensor([1]), floor=1e-8)
    tensor([0.6931])
    """
    h = at_least_float32(torch.stack(list(parts)))
    low = torch.full((), math.log(floor), device=h.device, dtype=h.dtype)
    if target.ndim == 2 and not target.is_floating_point():
        return torch.logaddexp(torch.logsumexp(-h * (2 * target - 1), 0), low).mean(1)
    y = _truth(target).view(1, -1, 1)
    gaps = h - h.gather(2, y.expand(len(h), -1, 1))
    others = gaps.scatter(2, y.expand(len(h), -1, 1), -torch.inf)
    return torch.logaddexp(torch.logsumexp(others, (0, 2)), low)


def certified_radius(
    h: Float[Tensor, "modalities batch outputs"],
    scales: Float[Tensor, "modalities outputs"],
    bias: Float[Tensor, " outputs"],
    tau: Float[Tensor, "modalities outputs"],
    target: Tensor,
) -> Float[Tensor, " batch"]:
    """r = (f_y - f_j) / sqrt(sum_m (|a_y| tau_y + |a_j| tau_j)²), j the best wrong output.

    f = sum_m a^m h^m + b. While r is positive, a perturbation of all inputs that is shorter does
    not make j win. Integer labels (batch, outputs): the mean over labels of s f / |a tau|.

    >>> h = torch.tensor([[[2.0, 1.0]]])
    >>> one = torch.ones(1, 2)
    >>> certified_radius(h, one, torch.zeros(2), one, torch.tensor([0]))
    tensor([0.5000])
    """
    f = (scales[:, None] * at_least_float32(h)).sum(0) + bias
    slope = scales.abs() * tau
    if target.ndim == 2 and not target.is_floating_point():
        return ((2 * target - 1) * f / slope.square().sum(0).add(1e-24).sqrt()).mean(1)
    y = _truth(target)
    wrong = f.detach().scatter(1, y[:, None], -torch.inf)
    j = wrong.argmax(1)
    gap = f.gather(1, y[:, None]) - f.gather(1, j[:, None])
    squares = (slope[:, y] + slope[:, j]).square().sum(0)
    return gap.squeeze(1) / squares.add(1e-24).sqrt()


def input_slopes(
    answer: Callable[[Any], Float[Tensor, "batch outputs"]], x: Any
) -> Float[Tensor, "batch outputs"]:
    """|d answer_k / d x| of every sample and output; rows should not depend on each other.

    Raises ValueError where `x`, a tensor or a tree of them, holds no floating tensor.

    >>> input_slopes(lambda x: 3 * x, torch.ones(2, 1))
    tensor([[3.],
            [3.]])
    """
    with torch.enable_grad():
        given = map_tensors(_tracked, x)
        free = [t for t in leaves(given) if t.requires_grad]
        if not free:
            raise ValueError(
                "Slopes are with respect to real inputs. Found no floating tensor among them. "
                "Embed token numbers before the model."
            )
        rows = [
            torch.autograd.grad(column.sum(), free, retain_graph=True, materialize_grads=True)
            for column in answer(given).unbind(1)
        ]
    norms = [torch.cat([g.float().flatten(1) for g in row], 1).norm(dim=1) for row in rows]
    return torch.stack(norms, 1)


def _tracked(x: Tensor) -> Tensor:
    return x.detach().requires_grad_() if x.is_floating_point() else x
