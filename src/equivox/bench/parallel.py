"""Several processes that train together: what each takes of the data, and what all know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Sampler

from equivox.distributed import rank, world

if TYPE_CHECKING:
    from equivox.data import MultimodalData


# ── what each takes ─────────────────────────────────────────────────────────────────────────────


class Share(Sampler[Any]):
    """This rank's samples of an order that is equal on every rank.

    Arguments:
        order: of all samples.
        block: samples that all ranks take together; each has an equal consecutive part of them,
            and those of the last block that do not divide are left out. None for every N-th sample,
            with none left out.
        length: samples of the order to take; None for all.

    >>> list(Share(range(5), block=4)), list(Share(range(5), length=4))
    ([0, 1, 2, 3, 4], [0, 1, 2, 3])
    """

    def __init__(self, order: Any, block: int | None = None, length: int | None = None) -> None:
        self.order = order
        self.block = block
        self.length = len(order) if length is None else length

    @property
    def generator(self) -> torch.Generator | None:
        """What the order is drawn from."""
        return getattr(self.order, "generator", None)

    @property
    def planned(self) -> Any:
        """How the order turns positions that were decided beforehand into what is read."""
        return getattr(self.order, "planned", None)

    def __len__(self) -> int:
        if self.block is None:
            return len(range(rank(), self.length, world()))
        return self.length // world()

    def __iter__(self) -> Iterator[Any]:
        # To its end: a random order draws once more there, and the next one depends on it.
        order = list(self.order)[: self.length]
        if self.block is None:
            yield from order[rank() :: world()]
            return
        for start in range(0, len(order), self.block):
            block = order[start : start + self.block]
            rows = len(block) // world()
            yield from block[rank() * rows : (rank() + 1) * rows]


def training_loader(
    data: MultimodalData, batch_size: int, accumulate: int, generator: torch.Generator
) -> DataLoader[Any]:
    """This rank's part of the training data, in batches of `batch_size` / `accumulate` / ranks.

    Every rank has equally many; with `accumulate` all batches of an epoch are whole ones.
    """
    whole: Any = data.loader("train", batch_size, generator=generator)
    if world() == accumulate == 1:
        return whole
    samples, rows = len(whole.sampler), batch_size // accumulate
    length = samples if accumulate == 1 else samples // batch_size * batch_size
    return _shared(whole, rows // world(), Share(whole.sampler, rows, length))


def measuring_loader(data: MultimodalData, split: str) -> DataLoader[Any]:
    """This rank's part of a split, each sample once; the numbers of batches may differ."""
    whole: Any = data.loader(split, shuffle=False)
    return whole if world() == 1 else _shared(whole, whole.batch_size, Share(whole.sampler))


def _shared(whole: Any, batch_size: int, share: Share) -> DataLoader[Any]:
    return DataLoader(
        whole.dataset,
        batch_size=batch_size,
        sampler=share,
        generator=whole.generator,
        num_workers=whole.num_workers,
        collate_fn=whole.collate_fn,
    )


# ── what they know of each other ────────────────────────────────────────────────────────────────


def anywhere(*flags: bool) -> tuple[bool, ...]:
    """Which of the flags are up on any rank."""
    if world() == 1:
        return flags
    raised = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return tuple(map(bool, raised.tolist()))


def everywhere(value: Any) -> list[Any]:
    """The values of all ranks, in their order."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found
