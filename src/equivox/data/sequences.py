"""Vectors and sequences of features that are read at once: of what steps, on what scale.

In a sequence (time, dim) a step of zeros alone is padding, wherever it stands: it is not counted in
a mean and stays zero when the rest is standardised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.data.decoders import InMemory

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Features(InMemory):
    """Features in memory, and what was done to them.

    :param standardised: By mean and standard deviation of the training samples.
    :param replaced: How many numbers of the file were not finite, and are 0 now.
    """

    standardised: bool = False
    replaced: int = 0


def tensor(values: Any, where: str) -> Tensor:
    """Numbers as float32; ValueError, which says where they stand, for anything else."""
    import numpy

    try:
        return torch.from_numpy(numpy.asarray(values, dtype="float32"))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where} should be an array of numbers, its rows equally long. Found: {error}."
        ) from error


def finite(x: Tensor) -> tuple[Tensor, int]:
    """Zeros instead of infinite numbers and NaN, and how many there were.

    >>> finite(torch.tensor([1.0, float("-inf")]))
    (tensor([1., 0.]), 1)
    """
    good = x.isfinite()
    return torch.where(good, x, 0.0), int((~good).sum())


def time_mean(x: Float[Tensor, "samples time dim"]) -> Float[Tensor, "samples dim"]:
    """The mean over the steps that are no padding; zeros where all are.

    >>> time_mean(torch.tensor([[[2.0], [4.0], [0.0]]]))
    tensor([[3.]])
    """
    steps = (x != 0).any(-1).sum(1, keepdim=True)
    return x.sum(1) / steps.clamp(min=1)


def standardised(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every split minus the mean and over the standard deviation of the training samples.

    :param parts: (samples, dim) or (samples, time, dim) by split. A feature that is constant in
        training is divided by 1.
    """
    train = parts["train"].flatten(0, -2)
    train = train[(train != 0).any(-1)]
    if len(train) == 0:  # padding alone
        return dict(parts)
    std, mean = torch.std_mean(train, 0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)
    return {
        split: torch.where((x != 0).any(-1, keepdim=True), (x - mean) / std, 0.0)
        for split, x in parts.items()
    }
