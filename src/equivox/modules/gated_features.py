"""A gate a modality before a fusion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equivox.features import Features, map_values


class GatedFeatures(nn.Module):
    """Every feature times the gate of its modality, then the fusion that was there.

    `gate` (modalities,) is a buffer, of ones at first. `follow_` moves it.

    >>> from equivox.fusion import Sum
    >>> fusion = GatedFeatures(Sum({"audio": 4, "video": 2}, outputs=3), ("audio", "video"))
    >>> fusion.follow_(torch.tensor([0.5, 1.5]), beta=0.0)
    >>> fusion.gated({"audio": torch.ones(1, 4), "video": torch.ones(1, 2)})
    {'audio': tensor([[0.5000, 0.5000, 0.5000, 0.5000]]), 'video': tensor([[1.5000, 1.5000]])}
    """

    gate: Tensor

    def __init__(self, inner: nn.Module, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.modalities = modalities
        self.register_buffer("gate", torch.ones(len(modalities)))
        for name in ("widths", "outputs", "pool", "stackable", "partial", "branch", "additive"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))
        if hasattr(inner, "unimodal"):
            self.unimodal = self._unimodal

    def forward(self, features: Features) -> Any:
        return self.inner(self.gated(features))

    def gated(self, features: Features) -> Features:
        """The features times their gates."""
        gates = self.gates()
        return {m: map_values(gates[m].mul, z) for m, z in features.items()}

    def gates(self) -> dict[str, Tensor]:
        """The gate of each modality; a graph that holds them survives a change of `gate`."""
        return dict(zip(self.modalities, self.gate.clone(), strict=True))

    @torch.no_grad()
    def follow_(self, gates: Tensor, beta: float) -> None:
        """gate <- beta gate + (1 - beta) gates."""
        self.gate.copy_(beta * self.gate + (1 - beta) * gates)

    def _unimodal(self, features: Features) -> dict[str, Tensor]:
        said: dict[str, Tensor] = self.inner.unimodal(self.gated(features))  # type: ignore[operator]
        return said

    def compile(self, *arguments: Any, **options: Any) -> None:
        self.inner.compile(*arguments, **options)
