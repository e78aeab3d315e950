"""Contrastive losses between the features of two modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.functional.similarity import unit

if TYPE_CHECKING:
    from jaxtyping import Float


def info_nce(
    first: Float[Tensor, "batch features"],
    second: Float[Tensor, "batch features"],
    temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """[CE(S, diagonal) + CE(S^T, diagonal)] / 2 with S_ij = cos(first_i, second_j) / temperature.

    Every sample's two features find each other among the batch; symmetric in the modalities, and
    zero for a batch of one. In float32.

    >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor(0.3133)
    """
    with torch.autocast(first.device.type, enabled=False):
        similarity = F.linear(unit(first), unit(second)) / temperature
    same = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2
