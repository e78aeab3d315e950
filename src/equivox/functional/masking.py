"""Random masks from uniform draws, and how their strength grows; nothing waits for the device."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.features import Feature, map_tensors, values

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

    The share is a tensor, float64, so that the host need not know it.

    >>> random_mask(torch.tensor([0.7, 0.1, 0.4, 0.2]), torch.tensor(0.5).double())
    tensor([ True, False,  True, False])
    """
    zeros = torch.floor(share * len(uniform) + 1e-6)  # rounding must not lose a whole one
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


def channels(feature: Feature, pool: bool = True) -> int:
    """How many channels a feature has: the last axis of (batch, time, channels), else the second.

    With `pool=False` three axes are those of a dense feature (batch, channels, length).

    >>> channels(torch.ones(2, 5, 3)), channels(torch.ones(2, 3, 8, 8)), channels(torch.ones(2))
    (3, 3, 1)
    """
    x = values(feature)
    return x.shape[_channel_axis(x, pool)] if x.ndim > 1 else 1


def mask_channels(feature: Feature, kept: Bool[Tensor, " channels"], pool: bool = True) -> Feature:
    """The feature with zeros in the channels outside `kept`, the same for every sample.

    >>> mask_channels(torch.ones(1, 3), torch.tensor([True, False, True]))
    tensor([[1., 0., 1.]])
    """
    main = values(feature)
    shape = [1] * main.ndim
    if main.ndim > 1:
        shape[_channel_axis(main, pool)] = -1
    cut = torch.where(kept.view(shape), main, 0)
    return map_tensors(lambda x: cut if x is main else x, feature)


def _channel_axis(x: Tensor, pool: bool) -> int:
    return 2 if pool and x.ndim == 3 else 1
