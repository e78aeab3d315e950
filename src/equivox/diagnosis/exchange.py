"""Exchange: whose feature stands for that of a sample, drawn over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from equivox.features import Feature, leaves, map_tensors, padding, values

MEMORY = 2**30
"""Bytes of a split's rows that are held in memory; the others are in a temporary file each."""

Kind = tuple[Any, ...]
"""The shapes of one sample's tensors: rows of equal kinds may stand for each other."""


class Kept:
    """The batches of a split, of which any row may be lent to any batch.

    Up to `MEMORY` bytes are held in memory; what goes beyond is written to temporary files, which
    are mapped, so that the system drops from memory what is not being read. Close it to delete
    them.

    Rows are lent between batches whose tensors have equal shapes. The lengths of sequences that
    come with a mask may differ: shorter ones are filled up with padding. A sample of which there is
    no other with such shapes lends to itself.
    """

    def __init__(self, holds: bool = True) -> None:
        self.holds = holds
        self.batches: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.kinds: list[Kind] = []
        self._held = self._files = 0
        self._folder: TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return sum(self.sizes)

    def add(self, batch: Mapping[str, Any]) -> None:
        """Keep a batch, by modality; where this does not hold rows, its size and kind alone."""
        self.sizes.append(len(leaves(batch)[0]))
        self.kinds.append(kind(batch))
        if self.holds:
            self.batches.append({m: map_tensors(self._stored, x) for m, x in batch.items()})

    def _stored(self, x: Tensor) -> Tensor:
        self._held += x.nbytes
        if self._held <= MEMORY or not x.numel():
            return x.detach().cpu()
        self._folder = self._folder or TemporaryDirectory(ignore_cleanup_errors=True)
        path = Path(self._folder.name) / str(self._files)
        self._files += 1
        mapped = torch.from_file(str(path), shared=True, size=x.numel(), dtype=x.dtype)
        return mapped.view(x.shape).copy_(x.detach())

    def close(self) -> None:
        """Let go of the rows, and delete the files."""
        self.batches.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def ring(self, generator: torch.Generator) -> Tensor:
        """(samples,) the place of each sample in a random order, in which each lends to the next.

        Every kind has an order of its own, of places that are not next to those of another kind.
        """
        found = torch.empty(len(self), dtype=torch.long)
        for number, rows in enumerate(self.kinds_at().values()):
            found[rows] = ring(len(rows), generator) + number * (len(self) + 1)
        return found

    def kinds_at(self) -> dict[Kind, Tensor]:
        """The places of the samples of each kind."""
        names = list(dict.fromkeys(self.kinds))
        each = torch.tensor([names.index(kind) for kind in self.kinds], dtype=torch.long)
        numbers = each.repeat_interleave(torch.tensor(self.sizes, dtype=torch.long))
        return {name: (numbers == n).nonzero().flatten() for n, name in enumerate(names)}

    def lent(self, own: Mapping[str, Any], places: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """A batch, and the rows at as many places of the split, with sequences equally long."""
        ends = torch.tensor(self.sizes).cumsum(0)
        numbers = torch.searchsorted(ends, places, right=True)
        begins = ends - torch.tensor(self.sizes)
        at = zip(numbers.tolist(), (places - begins[numbers]).tolist(), strict=True)
        others = [_rows(self.batches[n], slice(i, i + 1)) for n, i in at]
        both = joined([map_tensors(Tensor.cpu, own), *others])
        count = len(places)
        return _rows(both, slice(count)), _rows(both, slice(count, None))

    def parts(self) -> Iterator[tuple[dict[str, Any], Tensor, dict[str, Tensor]]]:
        """Each batch with the places of its rows, and by modality the mean of all of its kind."""
        means = self._means()
        places = torch.arange(len(self)).split(self.sizes)
        for batch, rows, which in zip(self.batches, places, self.kinds, strict=True):
            yield batch, rows, {m: _begin(x, batch[m]) for m, x in means[which].items()}

    def _means(self) -> dict[Kind, dict[str, Tensor]]:
        found = {}
        for which in dict.fromkeys(self.kinds):
            alike = [b for b, other in zip(self.batches, self.kinds, strict=True) if other == which]
            found[which] = {m: _mean(b[m] for b in alike) for m in alike[0]}
        return found


Lend = Callable[[Mapping[str, Any]], tuple[dict[str, Any], dict[str, Any]]]
"""Of a batch: see `Kept.lent`."""


def lending(kept: Kept, generator: torch.Generator) -> Lend:
    """For the batches of another pass over the split: what other samples of their kind lend."""
    lender = lenders(kept.ring(generator))
    turns = {which: cycle(lender[rows].tolist()) for which, rows in kept.kinds_at().items()}

    def lend(own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        next_ones = islice(turns[kind(own)], len(leaves(own)[0]))
        return kept.lent(own, torch.tensor(list(next_ones)))

    return lend


def ring(count: int, generator: torch.Generator) -> Tensor:
    """(rows,) the place of each row in a random order, in which each lends to the next."""
    order = torch.randperm(count, generator=generator)
    return _places(order, torch.arange(count))


def lenders(ring: Tensor) -> Tensor:
    """(rows,) who lends to each row: the one before it in its ring, the last one to the first.

    >>> lenders(torch.tensor([1, 0, 2, 10, 11]))
    tensor([1, 2, 0, 4, 3])
    """
    order = ring.argsort()
    steps = ring[order].diff()
    cuts = ((steps > 1).nonzero().flatten() + 1).tolist()
    lent = torch.cat([part.roll(1) for part in order.tensor_split(cuts)])
    return _places(order, lent)


def _places(order: Tensor, values: Tensor) -> Tensor:
    """The values put back into the places that they were taken from by an order."""
    placed = torch.empty_like(order)
    placed[order] = values
    return placed


def differ(target: Any, partner: Tensor) -> Tensor:
    """(samples,) whether the target of `partner` is another one."""
    tensors = [x.flatten(1) if x.ndim > 1 else x[:, None] for x in leaves(target)]
    return torch.stack([(x != x[partner]).any(1) for x in tensors]).any(0)


def joined(batches: Sequence[Any]) -> Any:
    """Batches of equal kinds as one; shorter sequences are filled up with padding."""
    parts = iter([_stacked(tensors) for tensors in zip(*map(leaves, batches), strict=True)])
    return map_tensors(lambda _: next(parts), batches[0])


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    longest = max((x.shape[1] for x in tensors if x.ndim > 1), default=0)
    return torch.cat([_filled(x, longest) for x in tensors])


def _filled(x: Tensor, length: int) -> Tensor:
    """A sequence of this length; a boolean mask is True where there is nothing."""
    if x.ndim < 2 or x.shape[1] == length:
        return x
    more = x.new_full((len(x), length - x.shape[1], *x.shape[2:]), x.dtype == torch.bool)
    return torch.cat([x, more], 1)


def kind(batch: Mapping[str, Any]) -> Kind:
    """The shapes of one sample's tensors, but for the lengths of sequences that have a mask."""
    return tuple(_shapes(leaves(x)) for x in batch.values())


def _shapes(tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    masks = [x for x in tensors if x.ndim == 2 and not x.is_floating_point()]
    masked = [m.shape for m in masks if any(x is not m and x.shape[:2] == m.shape for x in tensors)]
    return tuple((-1, *x.shape[2:]) if x.shape[:2] in masked else x.shape[1:] for x in tensors)


def _rows(batch: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    return {m: map_tensors(lambda z: z[rows], x) for m, x in batch.items()}


def _mean(features: Iterable[Feature]) -> Tensor:
    """(1, …) the mean at every position, over the finite samples that have something there."""
    total, count = reduce(_added, map(_sums, features)).split(1)
    return total / count.clamp(min=1)


def _begin(mean: Tensor, feature: Feature) -> Tensor:
    """The mean at as many positions as the feature has."""
    return mean[:, : values(feature).shape[1]] if mean.ndim > 1 else mean


def _sums(feature: Feature) -> Tensor:
    """(2, …) the sum over the samples, and how many there are."""
    x, nothing = values(feature), padding(feature)
    there = x.isfinite().reshape(len(x), -1).all(1).view(-1, *[1] * (x.ndim - 1))
    if nothing is not None:
        there = there & ~nothing.view(*nothing.shape, *[1] * (x.ndim - 2))
    total = torch.where(there, x, 0).sum(0, dtype=torch.double)
    return torch.stack([total, there.sum(0).expand_as(total).double()])


def _added(one: Tensor, other: Tensor) -> Tensor:
    longest = max(x.shape[1] for x in (one, other)) if one.ndim > 1 else 0
    return _filled(one, longest) + _filled(other, longest)
