"""Cosine similarities between features and class weights, and between features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.functional.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def unit(x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
    """x / max(|x|, 1e-12) along the last axis, in float32, with no gradient at |x| <= 1e-12.

    The derivative at zero is 1e12: a blanked feature would blow up its encoder's gradient.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    wide = at_least_float32(x)
    normalised = F.normalize(wide, dim=-1, eps=1e-12)
    length = torch.linalg.vector_norm(wide.detach(), dim=-1, keepdim=True)
    return torch.where(length > 1e-12, normalised, normalised.detach())


def cosine_logits(
    features: Float[Tensor, "*batch features"],
    weight: Float[Tensor, "classes features"],
    scale: float | Float[Tensor, ""],
) -> Float[Tensor, "*batch classes"]:
    """`scale` times the cosine between every sample and every class weight, in float32.

    :param features: One modality's features z.
    :param weight: The columns of the head's weight that belong to this modality.
    :param scale: s, so that logits lie in [-s, s]; the paper uses 10 for a gated fusion.

    Source: MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning
    (ICASSP 2023).

    >>> cosine_logits(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]), 10.0)
    tensor([[6., 8.]])
    """
    with torch.autocast(features.device.type, enabled=False):
        return scale * F.linear(unit(features), unit(weight))


def supervised_nce(
    first: Float[Tensor, "batch features"],
    second: Float[Tensor, "batch features"],
    target: Int[Tensor, " batch"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Pull samples of one class together across two modalities, and push other classes apart.

    With P the softmax over j of cos(first_i, second_j) / temperature, the mean over i of: the mean
    over j of the same class of -log(P_ij + 1e-10), plus the mean over j of other classes of
    -log(1 - P_ij + 1e-10), which is zero where the batch holds a single class (the official code
    gives NaN there). It has one direction: exchanging the modalities changes it.

    Source: MMCosine (ICASSP 2023), supplement.
    """
    with torch.autocast(first.device.type, enabled=False):
        p = torch.softmax(F.linear(unit(first), unit(second)) / temperature, dim=1)
    same = target[:, None] == target[None]
    pull = _row_mean(-torch.log(p + 1e-10), same)
    push = _row_mean(-torch.log(1 - p + 1e-10), ~same)
    return (pull + push).mean()


def _row_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum(1) / mask.sum(1).clamp_min(1)
