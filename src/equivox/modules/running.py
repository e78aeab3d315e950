"""Means and variances over the updates of a training, which forget."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """mean <- beta mean + (1 - beta) x, and variance <- beta variance + (1 - beta) (x - mean)².

    The deviation is from the mean before x. The first x is the first mean, with variance zero.

    Arguments: `shape` of x; `beta`, the decay.

    >>> past = RunningMoments((2,), beta=0.9)
    >>> past.follow_(torch.tensor([1.0, 4.0]))
    >>> past.ratio(torch.tensor([2.0, 2.0]))
    tensor([2.0000, 0.5000])
    """

    mean: Tensor
    variance: Tensor
    known: Tensor

    def __init__(self, shape: tuple[int, ...], beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.zeros(shape))
        self.register_buffer("known", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def follow_(self, x: Tensor) -> None:
        """Take one more value in."""
        apart = torch.where(self.known, (x - self.mean).square(), 0)
        self.variance.copy_(self.beta * self.variance + (1 - self.beta) * apart)
        moved = self.beta * self.mean + (1 - self.beta) * x
        self.mean.copy_(torch.where(self.known, moved, x))
        self.known.fill_(True)

    def ratio(self, x: Tensor) -> Tensor:
        """x over the mean of a positive quantity; one while there is no mean."""
        return torch.where(self.known, x / self.mean.clamp(min=1e-8), 1)
