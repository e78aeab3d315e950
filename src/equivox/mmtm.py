"""MMTM: squeeze and excitation across modalities, as a block on feature maps and as a fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivox.distributed import summed, world
from equivox.features import Feature, Features, blanked, map_tensors, values, vector
from equivox.fusion import Concat, Fused, Fusion, Sum, additive, sum_of
from equivox.model import evaluating


class MMTMBlock(nn.Module):
    """Multiply the channels of every modality by a gate that all modalities decide.

    g_m = sigmoid(W_m e + b_m) with e = ReLU(W_s [s_1; …; s_M] + b_s), where s_m is the mean of
    feature m over time or space. e is int(2 * sum of widths / ratio) wide.

    In training it keeps the plain average of all batch means of every gate in `mean(modality)`, and
    multiplies the modality number `held` (none at -1) by that constant instead of its gate: this
    branch then gives the squeeze no gradient, and reads nothing of the other modalities. In eval
    mode gates are natural and nothing is kept.

    Arguments:
        widths: channels of each modality.
        ratio: of the bottleneck; 4 in the paper.
        pool: False for dense features (batch, channels, *space) of any number of axes; otherwise
            three axes are tokens (batch, time, channels).

    Source: Joze et al., MMTM: Multimodal Transfer Module for CNN Fusion (CVPR 2020); gates without
    the factor 2, and held ones, after Wu et al. (ICML 2022).

    >>> block = MMTMBlock({"audio": 4, "video": 2})
    >>> gated = block({"audio": torch.ones(3, 4, 8, 8), "video": torch.ones(3, 2)})
    >>> gated["audio"].shape
    torch.Size([3, 4, 8, 8])
    """

    count: Tensor
    held: Tensor

    def __init__(self, widths: Mapping[str, int], ratio: float = 4.0, pool: bool = True) -> None:
        super().__init__()
        if ratio <= 0:
            raise ValueError(f"`ratio` should be positive. Found `ratio = {ratio}`.")
        self.widths = dict(widths)
        self.pool = pool
        total = sum(widths.values())
        hidden = max(1, int(2 * total / ratio))
        self.squeeze = nn.Linear(total, hidden)
        self.excitations = nn.ModuleDict({m: nn.Linear(hidden, w) for m, w in widths.items()})
        for modality, width in widths.items():
            self.register_buffer(f"mean_{modality}", torch.zeros(width))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("held", torch.full((), -1))

    def forward(self, features: Features) -> Features:
        gates = self.gates(features)
        if self.training:
            self._track(gates)
        return self._gated(features, gates)

    def gated(self, features: Features) -> Features:
        """The features times the gates in force; the averages stay as they are."""
        return self._gated(features, self.gates(features))

    def _gated(self, features: Features, gates: dict[str, Tensor]) -> Features:
        if self.training:
            gates = {m: self._in_force(i, m, gates[m]) for i, m in enumerate(gates)}
        return {m: self._scaled(feature, gates[m]) for m, feature in features.items()}

    def gates(self, features: Features) -> dict[str, Tensor]:
        """The natural gate of every modality, (batch, width) each.

        It reads zeros of a modality that `features` lack.
        """
        read = {m: self._squeezed(feature) for m, feature in features.items()}
        some = next(iter(read.values()))
        parts = [
            read[m] if m in read else some.new_zeros(len(some), w) for m, w in self.widths.items()
        ]
        e = self.squeeze(torch.cat(parts, -1)).relu()
        return {m: excitation(e).sigmoid() for m, excitation in self.excitations.items()}

    def mean(self, modality: str) -> Tensor:
        """The average of this modality's gate over all training batches, (width,)."""
        return self.get_buffer(f"mean_{modality}")

    def bypass(self, modality: str) -> list[nn.Parameter]:
        """The parameters through which the other modalities reach this one."""
        own = self.excitations[modality].parameters()
        return [*own, *self.squeeze.parameters()]

    @torch.no_grad()
    def _track(self, gates: Mapping[str, Tensor]) -> None:
        means = summed([g.detach().float().mean(0) for g in gates.values()])
        for modality, mean in zip(gates, means, strict=True):
            old = self.mean(modality)
            old.copy_((mean / world() + self.count * old) / (self.count + 1))
        self.count += 1

    def _in_force(self, number: int, modality: str, gate: Tensor) -> Tensor:
        constant = self.mean(modality).to(gate.dtype).expand_as(gate)
        return torch.where(self.held == number, constant, gate)

    def _squeezed(self, feature: Feature) -> Tensor:
        if self.pool or values(feature).ndim < 3:
            return vector(feature)
        return values(feature).flatten(2).mean(-1)

    def _scaled(self, feature: Feature, gate: Tensor) -> Feature:
        main = values(feature)
        tokens = self.pool and main.ndim == 3
        shape = (len(gate), 1, -1) if tokens else (len(gate), -1, *[1] * (main.ndim - 2))
        factor = gate.reshape(shape) if main.ndim > 1 else gate.squeeze(-1)
        return map_tensors(lambda x: x * factor if x is main else x, feature)


class MMTM(Fusion):
    """An MMTM block on the features, and a fusion that reads the gated features.

    Arguments:
        widths, outputs: of the features, and of the logits.
        ratio: of the block's bottleneck.
        fusion: what reads the gated features; default `Concat`.

    >>> fusion = MMTM({"audio": 4, "video": 2}, outputs=3)
    >>> fusion({"audio": torch.ones(5, 4), "video": torch.ones(5, 2)}).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        outputs: int,
        ratio: float = 4.0,
        fusion: nn.Module | None = None,
    ) -> None:
        super().__init__(widths, outputs)
        self.fusion: Any = Concat(widths, outputs) if fusion is None else fusion
        self.pool = getattr(self.fusion, "pool", True)
        self.block = MMTMBlock(widths, ratio, self.pool)

    @property
    def stackable(self) -> bool:  # type: ignore[override]
        return getattr(self.fusion, "stackable", False)

    @property
    def partial(self) -> bool:  # type: ignore[override]
        return getattr(self.fusion, "partial", False)

    @property
    def additive(self) -> bool:
        return additive(self.fusion)

    def forward(self, features: Features) -> Tensor | Fused:
        return self.fusion(self.block(features))

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        gated = self.block.gated(features)
        if hasattr(self.fusion, "unimodal"):
            return self.fusion.unimodal(gated)
        with evaluating(self.fusion):
            return {m: self._alone(gated, m) for m in gated}

    def _alone(self, gated: Features, modality: str) -> Tensor:
        answer = self.fusion({m: blanked(z, m == modality) for m, z in gated.items()})
        return answer.logits if isinstance(answer, Fused) else answer

    def branch(self, modality: str) -> list[nn.Parameter]:
        own = list(self.block.excitations[modality].parameters())
        inner = self.fusion.branch(modality) if hasattr(self.fusion, "branch") else []
        return own + inner


class BranchMean(Sum):
    """One linear layer a modality; the logits are the mean of theirs.

    Each modality's own logits are in `extra["branches"]`; its share of the mean is `unimodal`.
    """

    def forward(self, features: Features) -> Fused:  # type: ignore[override]
        branches = super().unimodal(features)
        return Fused(sum_of(branches.values()) / len(branches), {"branches": branches})

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        branches = super().unimodal(features)
        return {m: z / len(branches) for m, z in branches.items()}
