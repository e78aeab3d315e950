"""Fusions: from the features of all modalities to the logits.

A fusion is any module that maps a dictionary of features to logits, or to `Fused(logits, extra)`.
What it may declare besides: `widths` and `outputs` (the heads need them), `unimodal(features)`
(what each modality alone contributes), `branch(modality)` (its parameters that serve one modality),
`stackable` (in eval mode rows do not depend on each other, so copies of a batch may be stacked) and
`partial` (it can do without a modality; otherwise a missing one is given to it as a blank).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox.features import Features, padding, project, values, vector


class Fused(NamedTuple):
    """A fusion's answer with something more: a posterior, an attention mass, an auxiliary loss."""

    logits: Tensor
    extra: Any = None


class Fusion(nn.Module):
    """What the ready fusions share: the features' widths and the number of outputs."""

    stackable = True
    partial = False

    def __init__(self, widths: Mapping[str, int], outputs: int) -> None:
        super().__init__()
        if not widths:
            raise ValueError("A fusion needs at least one modality. Found an empty `widths`.")
        bad = {name: width for name, width in widths.items() if width < 1}
        if bad or outputs < 1:
            raise ValueError(f"Widths and outputs should be positive. Found {bad or outputs}.")
        self.widths = dict(widths)
        self.outputs = outputs

    def branch(self, modality: str) -> list[nn.Parameter]:
        """The parameters of the fusion that serve one modality alone."""
        return []

    def extra_repr(self) -> str:
        return f"{self.widths}, {self.outputs}"


def additive(fusion: nn.Module) -> bool:
    """Whether the logits are the sum of what `unimodal` says of each modality.

    So it is wherever a fusion has that function, unless its `additive` says otherwise.
    """
    said: bool = getattr(fusion, "additive", hasattr(fusion, "unimodal"))
    return said


class Concat(Fusion):
    """One linear layer on the concatenated features: the standard late fusion.

    The logits are exactly the sum of the modalities' shares W_m z_m + b / M, which `unimodal`
    returns. With `pool=False` it acts on every position of dense features (batch, channels,
    *space).
    """

    def __init__(
        self, widths: Mapping[str, int], outputs: int, bias: bool = True, pool: bool = True
    ) -> None:
        super().__init__(widths, outputs)
        self.pool = pool
        self.linear = nn.Linear(sum(widths.values()), outputs, bias=bias)

    def forward(self, features: Features) -> Tensor:
        if self.pool:
            return self.linear(torch.cat([vector(features[name]) for name in self.widths], -1))
        return project(self.linear, torch.cat([values(features[m]) for m in self.widths], 1), False)

    def weights(self) -> dict[str, Tensor]:
        """The columns of the weight matrix that read each modality, (outputs, width) each."""
        parts = self.linear.weight.split(list(self.widths.values()), dim=1)
        return dict(zip(self.widths, parts, strict=True))

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        bias = None if self.linear.bias is None else self.linear.bias / len(self.widths)
        return {
            name: project(partial(F.linear, weight=weight, bias=bias), features[name], self.pool)
            for name, weight in self.weights().items()
            if name in features
        }


class Sum(Fusion):
    """One linear layer a modality; their outputs are added."""

    partial = True

    def __init__(self, widths: Mapping[str, int], outputs: int, pool: bool = True) -> None:
        super().__init__(widths, outputs)
        self.pool = pool
        self.linears = nn.ModuleDict({m: nn.Linear(width, outputs) for m, width in widths.items()})

    def forward(self, features: Features) -> Tensor:
        return sum_of(self.unimodal(features).values())

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        return {
            name: project(linear, features[name], self.pool)
            for name, linear in self.linears.items()
            if name in features
        }

    def branch(self, modality: str) -> list[nn.Parameter]:
        return list(self.linears[modality].parameters())


class SharedHead(Fusion):
    """One head for all modalities; the logits are `boost` times the sum of what it says of each.

    Arguments: `hidden` adds a layer of that width with ReLU; `dim` is the width that the head reads
    (features of another width are projected to it; default: the largest); `boost=True` makes the
    factor of the sum, 1 at first, learnable.
    """

    partial = True

    def __init__(
        self,
        widths: Mapping[str, int],
        outputs: int,
        hidden: int | None = None,
        dim: int | None = None,
        boost: bool = False,
    ) -> None:
        super().__init__(widths, outputs)
        self.dim = dim or max(widths.values())
        self.projections = nn.ModuleDict(
            {m: nn.Linear(width, self.dim) for m, width in widths.items() if width != self.dim}
        )
        layers: list[nn.Module] = [nn.Linear(self.dim, hidden), nn.ReLU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Linear(hidden or self.dim, outputs))
        self.boost = nn.Parameter(torch.ones(())) if boost else None

    def forward(self, features: Features) -> Tensor:
        total = sum_of(self.unimodal(features).values())
        return total if self.boost is None else self.boost * total

    @property
    def additive(self) -> bool:
        return self.boost is None

    def projected(self, features: Features) -> dict[str, Tensor]:
        """What the head reads of each modality, (batch, dim)."""
        return {
            name: self.projections[name](vector(features[name]))
            if name in self.projections
            else vector(features[name])
            for name in self.widths
            if name in features
        }

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        return {name: self.head(z) for name, z in self.projected(features).items()}

    def branch(self, modality: str) -> list[nn.Parameter]:
        if modality not in self.projections:
            return []
        return list(self.projections[modality].parameters())


class _Crossed(Fusion):
    """Modalities change each other's features, then one linear layer reads all of them."""

    def __init__(self, widths: Mapping[str, int], outputs: int, dim: int | None, maps: int) -> None:
        super().__init__(widths, outputs)
        self.dim = dim or max(widths.values())
        self.maps = nn.ModuleDict(
            {m: nn.Linear(width, maps * self.dim) for m, width in widths.items()}
        )
        self.linear = nn.Linear(len(widths) * self.dim, outputs)

    def forward(self, features: Features) -> Tensor:
        return self.linear(torch.cat(list(self.crossed(features).values()), -1))

    def crossed(self, features: Features) -> dict[str, Tensor]:
        """The features after the others acted on them, (batch, dim) each."""
        raise NotImplementedError

    def branch(self, modality: str) -> list[nn.Parameter]:
        return list(self.maps[modality].parameters())


class Gated(_Crossed):
    """x'_m = sigmoid(mean of G_j x_j over the others) * G_m x_m, then one linear layer on all x'.

    With two modalities this is the symmetric gated fusion of the field; with one, no gate.
    """

    def __init__(self, widths: Mapping[str, int], outputs: int, dim: int | None = None) -> None:
        super().__init__(widths, outputs, dim, maps=1)

    def crossed(self, features: Features) -> dict[str, Tensor]:
        mapped = {m: self.maps[m](vector(features[m])) for m in self.widths}
        gates = {m: mean_of_others(mapped, m) for m in mapped}
        return {m: x if (g := gates[m]) is None else g.sigmoid() * x for m, x in mapped.items()}


class FiLM(_Crossed):
    """x'_m = gamma(others) * x_m + beta(others), then one linear layer on all x'.

    gamma and beta are the halves of a linear map of each other modality, averaged over the others.
    Features of another width than `dim` (default: the largest) are projected to it.
    """

    def __init__(self, widths: Mapping[str, int], outputs: int, dim: int | None = None) -> None:
        super().__init__(widths, outputs, dim, maps=2)
        self.projections = nn.ModuleDict(
            {m: nn.Linear(width, self.dim) for m, width in widths.items() if width != self.dim}
        )

    def crossed(self, features: Features) -> dict[str, Tensor]:
        mapped = {m: self.maps[m](vector(features[m])) for m in self.widths}
        return {m: self._modulated(m, features, mean_of_others(mapped, m)) for m in self.widths}

    def _modulated(self, name: str, features: Features, others: Tensor | None) -> Tensor:
        x = vector(features[name])
        x = self.projections[name](x) if name in self.projections else x
        if others is None:
            return x
        gamma, beta = others.chunk(2, dim=-1)
        return gamma * x + beta

    def branch(self, modality: str) -> list[nn.Parameter]:
        own = super().branch(modality)
        if modality in self.projections:
            own += self.projections[modality].parameters()
        return own


class Attention(Fusion):
    """Transformer layers over the tokens of all modalities and a class token, which is read out.

    A feature is (batch, time, width) with an optional padding mask, a map (batch, width, *space)
    with one token a position, or one token (batch, width).
    A modality that a batch lacks simply contributes no tokens.
    """

    partial = True

    def __init__(
        self,
        widths: Mapping[str, int],
        outputs: int,
        dim: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(widths, outputs)
        if dim % heads:
            raise ValueError(f"`dim` should be a multiple of `heads`. Found {dim} and {heads}.")
        self.projections = nn.ModuleDict({m: nn.Linear(width, dim) for m, width in widths.items()})
        self.kinds = nn.ParameterDict({m: nn.Parameter(torch.zeros(dim)) for m in widths})
        self.token = nn.Parameter(torch.randn(dim) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, batch_first=True)
            for _ in range(layers)
        )
        self.linear = nn.Linear(dim, outputs)

    def forward(self, features: Features) -> Tensor:
        present = [name for name in self.widths if name in features]
        tokens = [self._tokens(name, features[name]) for name in present]
        masks = [padding(features[name]) for name in present]
        batch = tokens[0].shape[0]
        x = torch.cat([self.token.expand(batch, 1, -1), *tokens], 1)
        mask = None
        if any(m is not None for m in masks):
            known = [_no_padding(t) if m is None else m for t, m in zip(tokens, masks, strict=True)]
            mask = torch.cat([_no_padding(x[:, :1]), *known], 1)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=mask)
        return self.linear(x[:, 0])

    def _tokens(self, name: str, feature: Any) -> Tensor:
        x = values(feature)
        if x.ndim > 3:
            x = x.flatten(2).transpose(1, 2)
        x = vector(x).unsqueeze(1) if x.ndim < 3 else x
        return self.projections[name](x) + self.kinds[name]

    def branch(self, modality: str) -> list[nn.Parameter]:
        return [*self.projections[modality].parameters(), self.kinds[modality]]


def _no_padding(tokens: Tensor) -> Tensor:
    return torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor, in order and without a zero to start from."""
    iterator = iter(terms)
    total = next(iterator)
    for term in iterator:
        total = total + term
    return total


def mean_of_others(parts: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The mean of all parts but one, or None where there is no other."""
    others = [part for other, part in parts.items() if other != name]
    return sum_of(others) / len(others) if others else None


FUSIONS: dict[str, type[Fusion]] = {
    "concat": Concat,
    "sum": Sum,
    "gated": Gated,
    "film": FiLM,
    "attention": Attention,
    "shared_head": SharedHead,
}
"""The ready fusions by name; each is built from the widths and the number of outputs."""
