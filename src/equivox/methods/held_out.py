"""What methods do with the held-out part of the training data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.method import Batch

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Output
    from equivox.run import Run


def cycled(run: Run) -> Iterator[Batch]:
    """The held-out batches, again and again. Raises ValueError where there are none."""
    while True:
        batch = None
        for batch in run.batches(run.validation or ()):
            yield batch
        if batch is None:
            raise ValueError("Held-out data should hold a batch. Found an empty loader.")


def unimodal_merits(run: Run) -> Float[Tensor, " modalities"]:
    """The mean of `task.merit` of each modality alone."""

    def merits(output: Output, batch: Batch) -> dict[str, Tensor]:
        return {m: run.task.merit(z, batch.target) for m, z in output.unimodal.items()}

    rows = run.collect(run.validation or (), merits)
    return torch.stack([rows[m].float().mean() for m in run.model.modalities])
