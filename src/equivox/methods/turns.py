"""Modalities that train by turns: the shared piece of the methods that alternate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from equivox.fusion import SharedHead
from equivox.method import Batch

if TYPE_CHECKING:
    from equivox.model import Multimodal


def by_turns(
    batches: Iterable[Batch], modalities: Sequence[str], forwards: int = 1
) -> Iterator[Batch]:
    """Every batch once for each modality that it holds, with that modality alone.

    `forwards` batches of one modality come together, as many as the loop sums before a step, so
    that every update is of one modality.

    >>> batches = [Batch({"a": 1, "b": 2}, target=0), Batch({"a": 3, "b": 4}, target=1)]
    >>> [batch.inputs for batch in by_turns(batches, ["a", "b"], forwards=2)]
    [{'a': 1}, {'a': 3}, {'b': 2}, {'b': 4}]
    """
    iterator = iter(batches)
    while group := list(islice(iterator, forwards)):
        for modality in modalities:
            yield from (batch.only(modality) for batch in group if modality in batch.inputs)


def share_head(model: Multimodal, hidden: int | None = None, boost: bool = False) -> None:
    """Make the fusion a `SharedHead`, unless it is one that has, or has not, a `boost` as asked."""
    fusion = model.fusion
    if not isinstance(fusion, SharedHead) or (fusion.boost is not None) != boost:
        model.fusion = SharedHead(*model.sizes(), hidden=hidden, boost=boost)
