"""Connections between modalities inside a fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Lateral(nn.Module):
    """A lateral connection of a fusion, cut in training while its modality is dropped.

    Put it where a modality's term is added to the others: `x + self.lateral(term)`. Exact zeros
    stand for a cut term, in the gradient too.

    >>> Lateral("audio")(torch.ones(2))
    tensor([1., 1.])
    """

    kept: Tensor

    def __init__(self, modality: str) -> None:
        super().__init__()
        self.modality = modality
        self.register_buffer("kept", torch.ones((), dtype=torch.bool))

    def forward(self, term: Tensor) -> Tensor:
        return torch.where(self.kept.clone(), term, 0) if self.training else term
