"""Sums over ranks. With one process every function returns what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, 0 … world - 1."""
    return dist.get_rank() if world() > 1 else 0


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors summed over ranks, in one call; shapes may differ, the dtype is float32."""
    if world() == 1:
        return list(tensors)
    flat = torch.cat([t.detach().float().reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    parts = flat.split([t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


def averaged_(tensors: Sequence[Tensor]) -> None:
    """Replace the tensors by their means over ranks, in one call."""
    if world() == 1 or not tensors:
        return
    for tensor, total in zip(tensors, summed(tensors), strict=True):
        tensor.copy_(total / world())


def gathered(rows: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks; their numbers may differ."""
    if world() == 1:
        return rows
    counts: list[Any] = [None] * world()
    dist.all_gather_object(counts, rows.shape[0])
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: rows.shape[0]] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def broadcast_(tensors: Sequence[Tensor]) -> None:
    """Replace the tensors by those of rank 0."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def check_equal(value: int | None, what: str) -> None:
    """Refuse to go on where ranks differ: one of them would wait for the others for ever."""
    if world() == 1:
        return
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    if len(set(found)) > 1:
        raise ValueError(
            f"All ranks should have equally many {what}. Found {found}. Use a "
            "`DistributedSampler`, or `drop_last=True`."
        )
