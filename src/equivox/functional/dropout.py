"""Dropping whole modalities: who is kept, how much is gone, and the features that are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.features import Features, blanked, map_values

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def kept_pathways(
    draws: Float[Tensor, " modalities"],
    p: float,
    droppable: Bool[Tensor, " modalities"],
    there: Bool[Tensor, "batch modalities"],
) -> Bool[Tensor, "batch modalities"]:
    """Keep what draws p or more or may not be dropped; the highest draw where nothing is left.

    One draw serves all samples; rows differ only where `there` does, which says what a sample has.

    Source: DropPathway (arXiv 2001.08740).

    >>> droppable, there = torch.tensor([True, True]), torch.tensor([[True, True], [False, True]])
    >>> kept_pathways(torch.tensor([0.7, 0.1]), 0.5, droppable, there)
    tensor([[ True, False],
            [False,  True]])
    """
    kept = ((draws >= p) | ~droppable) & there
    there_draws = torch.where(there, draws, -1.0)
    highest = there_draws == there_draws.amax(1, keepdim=True)
    return kept | (highest & ~kept.any(1, keepdim=True))


def dropped_fraction(
    q: Mapping[str, Float[Tensor, ""]], widths: Mapping[str, int]
) -> Float[Tensor, ""]:
    """theta = sum_m d_m q_m / sum_m d_m: the expected share of features that is dropped.

    >>> q = {"audio": torch.tensor(0.6), "video": torch.tensor(0.0)}
    >>> dropped_fraction(q, {"audio": 3, "video": 1})
    tensor(0.4500)
    """
    return torch.stack([widths[m] * x for m, x in q.items()]).sum() / sum(widths[m] for m in q)


def dropped(
    features: Features, kept: Mapping[str, Bool[Tensor, " batch"]], theta: Float[Tensor, ""]
) -> Features:
    """The features with rows outside `kept` zero, and all of them divided by 1 - theta.

    >>> z = {"audio": torch.tensor([[3.0], [1.0]])}
    >>> dropped(z, {"audio": torch.tensor([True, False])}, theta=torch.tensor(0.25))
    {'audio': tensor([[4.],
            [0.]])}
    """
    scale = 1 / (1 - theta)
    zeroed = {m: blanked(z, kept[m]) for m, z in features.items()}
    return {m: map_values(lambda x: x * scale.to(x.dtype), z) for m, z in zeroed.items()}
