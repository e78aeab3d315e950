"""Contrastive losses between the features of two modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.distributed import gathered, rank, world
from equivox.functional.similarity import unit
from equivox.fusion import sum_of

if TYPE_CHECKING:
    from jaxtyping import Float


def info_nce(
    first: Float[Tensor, "batch features"],
    second: Float[Tensor, "batch features"],
    temperature: float = 0.07,
    weight: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """[CE(S, diagonal) + CE(S^T, diagonal)] / 2 with S_ij = cos(first_i, second_j) / temperature.

    Every sample's two features find each other among the batch; symmetric in the modalities, and
    zero for a batch of one. In float32.

    :param weight: Of the samples in the mean over them; all are there to be told apart from.

    >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor(0.3133)
    """
    with torch.autocast(first.device.type, enabled=False):
        similarity = F.linear(unit(first), unit(second)) / temperature
    same = torch.arange(len(first), device=first.device)
    options: dict[str, Any] = {}
    if weight is not None:  # a sample is its own class here
        shares = weight / weight.sum().clamp(min=1e-12)
        options = {"weight": shares.to(similarity.dtype), "reduction": "sum"}
    found = (F.cross_entropy(logits, same, **options) for logits in (similarity, similarity.T))
    return sum_of(found) / 2


def global_info_nce(
    first: Float[Tensor, "batch features"],
    second: Float[Tensor, "batch features"],
    temperature: float = 0.07,
    weight: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """`info_nce` among the samples of all ranks, whose batches should be equally large.

    Gradients, once averaged over the ranks as wrappers do, are those of one large batch.
    """
    weight = None if weight is None else gathered(weight)
    loss = info_nce(_everywhere(first), _everywhere(second), temperature, weight)
    # Each rank holds the gradients of its own rows, of which the average is not the sum.
    return loss + (world() - 1) * (loss - loss.detach())


def _everywhere(rows: Tensor) -> Tensor:
    """The rows of all ranks; gradients flow into this rank's own."""
    if world() == 1:
        return rows
    parts = list(gathered(rows.detach()).split(len(rows)))
    parts[rank()] = rows
    return torch.cat(parts)
