"""A late fusion in which every modality may get one classifier after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from equivox.features import Features, vector
from equivox.functional.averaging import weighted_mean
from equivox.fusion import Fused, Fusion


class Classifiers(NamedTuple):
    """What a modality's classifiers say, (room, batch, outputs), and which are switched on."""

    each: Tensor
    on: Tensor  # (room, 1, 1)
    newest: Tensor  # (room, 1, 1)

    def all(self) -> Tensor:
        """The sum of all that are on."""
        return torch.where(self.on, self.each, 0).sum(0)

    def before(self) -> Tensor:
        """The sum of all but the newest; zero where there is one."""
        return torch.where(self.on & ~self.newest, self.each, 0).sum(0)

    def added(self) -> Tensor:
        """The newest."""
        return torch.where(self.newest, self.each, 0).sum(0)


class Growing(Fusion):
    """Classifiers a modality that add up, and a weighted mean over modalities of what they say.

    A classifier is a linear layer of its own, ReLU, and one linear layer that all share. There is
    room for `capacity` of them a modality; `counts` says how many are switched on. `weights` are
    those of the mean, equal if None.

    Raises ValueError for `weights` of other modalities, or of zero and less.

    >>> fusion = Growing({"a": 3, "b": 3}, outputs=2, capacity=4, hidden=8)
    >>> new = fusion.grow("b", torch.Generator())
    >>> fusion.counts
    tensor([1, 2])
    """

    partial = True
    additive = False
    counts: Tensor

    def __init__(
        self,
        widths: Mapping[str, int],
        outputs: int,
        capacity: int,
        hidden: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(widths, outputs)
        self.mean_weights = dict(weights or dict.fromkeys(widths, 1.0))
        if set(self.mean_weights) != set(widths) or min(self.mean_weights.values()) <= 0:
            raise ValueError(
                f"`weights` should be positive, one for each of {list(widths)}. Found {weights}."
            )
        self.rooms = nn.ModuleDict(
            {
                m: nn.ModuleList(nn.Linear(width, hidden) for _ in range(capacity))
                for m, width in widths.items()
            }
        )
        self.shared = nn.Linear(hidden, outputs)
        self.register_buffer("counts", torch.ones(len(widths), dtype=torch.long))

    def forward(self, features: Features) -> Fused:
        said = {m: self.classifiers(m, features[m]) for m in self.widths if m in features}
        totals = {m: classifiers.all() for m, classifiers in said.items()}
        return Fused(weighted_mean(totals, self.mean_weights), said)

    def classifiers(self, modality: str, feature: Any) -> Classifiers:
        """What each of a modality's classifiers says."""
        x = vector(feature)
        layers: Any = self.rooms[modality]
        each = self.shared(torch.stack([layer(x).relu() for layer in layers]))
        count = self.counts[list(self.widths).index(modality)].clone()
        number = torch.arange(1, len(layers) + 1, device=x.device).view(-1, 1, 1)
        return Classifiers(each, number <= count, number == count)

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        return {m: self.classifiers(m, features[m]).all() for m in self.widths if m in features}

    def branch(self, modality: str) -> list[nn.Parameter]:
        return list(self.rooms[modality].parameters())

    def later(self) -> list[nn.Parameter]:
        """The parameters of all classifiers but the first of each modality."""
        rooms: Any = self.rooms
        return [p for layers in rooms.values() for p in layers[1:].parameters()]

    @torch.no_grad()
    def grow(self, modality: str, generator: torch.Generator) -> list[nn.Parameter]:
        """Switch one more classifier on, made anew; its parameters, none where there is no room."""
        place = list(self.widths).index(modality)
        layers: Any = self.rooms[modality]
        count = int(self.counts[place])
        if count == len(layers):
            return []
        layer = layers[count]
        fresh = torch.empty(layer.weight.shape)  # drawn on the CPU: equal on every rank and device
        layer.weight.copy_(nn.init.xavier_normal_(fresh, generator=generator))
        layer.bias.zero_()
        self.counts[place] += 1
        return list(layer.parameters())
