"""Random masks from uniform draws, and how their strength grows; nothing waits for the device."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def ranks(uniform: Float[Tensor, "*batch n"]) -> Tensor:
    """The place of every entry in the order of its row, from 0: a random permutation.

    >>> ranks(torch.tensor([0.7, 0.1, 0.4]))
    tensor([2, 0, 1])
    """
    return uniform.argsort(dim=-1, stable=True).argsort(dim=-1)


def random_mask(
    uniform: Float[Tensor, " features"], share: Float[Tensor, ""]
) -> Bool[Tensor, " features"]:
    """A mask with int(share * features) entries False, at random places.

    A share as a tensor need not be known to the host.

    >>> random_mask(torch.tensor([0.7, 0.1, 0.4, 0.2]), torch.tensor(0.5))
    tensor([ True, False,  True, False])
    """
    # A thousandth of a unit: the rounding of `share` must not lose a whole one.
    zeros = torch.floor(share * len(uniform) + 1e-3)
    return ranks(uniform) >= zeros


def nested_masks(
    uniform: Float[Tensor, "batch modalities"],
) -> Bool[Tensor, "modalities batch modalities"]:
    """A chain of M masks for each sample: all kept, one fewer in each, one left in the last.

    >>> nested_masks(torch.tensor([[0.7, 0.1]]))
    tensor([[[ True,  True]],
    <BLANKLINE>
            [[False,  True]]])
    """
    place = ranks(uniform)
    return torch.stack([place < kept for kept in range(uniform.shape[-1], 0, -1)])


def sine_ramp(progress: Float[Tensor, ""], end: float) -> Float[Tensor, ""]:
    """sin(pi / 2 * min(progress, end) / end): from 0 to 1 at `end`, and then 1.

    >>> sine_ramp(torch.tensor(0.1), end=0.3)
    tensor(0.5000)
    """
    return torch.sin(pi / 2 * progress.clamp(max=end) / end)
