"""An epoch whose batches are decided beforehand, as positions in the data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from equivox.distributed import rank, world

if TYPE_CHECKING:
    from jaxtyping import Int

_KEPT = (
    "collate_fn",
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
    "prefetch_factor",
)


def planned_loader(loader: Any, batches: Iterable[Tensor]) -> DataLoader[Any]:
    """A loader of these batches of positions in the data set, otherwise like `loader`.

    ValueError for a loader that has no data set to draw from.
    """
    sized = hasattr(getattr(loader, "dataset", None), "__len__")
    if not sized or not getattr(loader, "batch_size", None):
        raise ValueError(
            "Resampling needs a loader with a `dataset` of known length and a `batch_size`. Found "
            f"`{type(loader).__name__}`. Use a `DataLoader` of a map-style data set."
        )
    options = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    plan: Any = [b.tolist() for b in batches]
    planned = getattr(getattr(loader, "sampler", None), "planned", None)
    if planned is not None:  # the samples of a pass share its seed
        plan = planned(plan)
    return DataLoader(loader.dataset, batch_sampler=plan, **options)


def batches_of_rank(
    order: Int[Tensor, " rows"], size: int, drop_last: bool = False
) -> list[Int[Tensor, " batch"]]:
    """This rank's parts of the batches that one process would cut from an order equal on all ranks.

    With N ranks one process would cut batches of N * `size`; the ranks' parts follow one another in
    them. Every rank gets equally many rows, so up to N - 1 rows of the last batch are -1.

    >>> import torch
    >>> batches_of_rank(torch.tensor([3, 0, 4, 1, 2]), size=2)
    [tensor([3, 0]), tensor([4, 1]), tensor([2])]
    """
    whole = world() * size
    batches = [part for part in order.split(whole) if len(part) == whole or not drop_last]
    filled = [F.pad(part, (0, -len(part) % world()), value=-1) for part in batches]
    return [part.chunk(world())[rank()] for part in filled]
