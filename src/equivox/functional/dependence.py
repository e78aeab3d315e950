"""How much a fused prediction rests on each modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.functional.outcomes import row_means
from equivox.task import Classification, Dense

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from equivox.task import Task


def dependence(
    logits: Mapping[str, Float[Tensor, " batch outputs *space"]], task: Task
) -> dict[str, Float[Tensor, " batch"]]:
    """Each modality's share of every sample; the shares of a sample add up to one.

    Classes: its mass in the softmax over the concatenation of all modalities' logits. Labels and
    numbers: its part in the sum of |z_m|; equal parts where all are zero.
    """
    if isinstance(task, (Classification, Dense)):
        z = torch.stack([x.detach().float() for x in logits.values()], 1)  # (batch, modalities, …)
        mass = z.flatten(1, 2).softmax(1).view_as(z).sum(2)
    else:
        sizes = [row_means(x.detach().float().abs()) for x in logits.values()]
        size = torch.stack(sizes, 1)
        total = size.sum(1, keepdim=True)
        mass = torch.where(total > 0, size / total.where(total > 0, 1), 1 / len(logits))
    return {m: row_means(part) for m, part in zip(logits, mass.unbind(1), strict=True)}


def dependent(shares: Float[Tensor, " modalities"], sigma: float) -> Bool[Tensor, " modalities"]:
    """share_m > sigma; never all modalities: then the one with the smallest share is not.

    >>> dependent(torch.tensor([0.694, 0.306]), sigma=0.5)
    tensor([ True, False])
    """
    flags = shares > sigma
    smallest = torch.arange(len(shares), device=shares.device) == shares.argmin()
    return flags & ~(flags.all() & smallest)
