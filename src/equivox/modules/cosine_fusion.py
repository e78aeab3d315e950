"""A fusion of cosines: the last linear layer without the lengths of features and weights."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from equivox.features import Feature, Features, project, vector
from equivox.functional import cosine_logits
from equivox.fusion import Concat, FiLM, Fusion, Gated, Sum, sum_of


class CosineFusion(Fusion):
    """The sum over modalities of `scale` times the cosine between feature and class weight.

    o_m = s cos(z_m, W_m), with the features z_m that the last linear layer of `inner` reads and its
    columns W_m; the logits are sum_m o_m. The bias takes no part.

    Arguments: `inner` is the fusion whose parameters it uses; `scale` is s.
    """

    def __init__(self, inner: Concat | Sum | Gated | FiLM, scale: float) -> None:
        super().__init__(inner.widths, inner.outputs)
        self.inner = inner
        self.scale = scale
        self.pool = getattr(inner, "pool", True)
        for layer in inner.linears.children() if isinstance(inner, Sum) else [inner.linear]:
            if isinstance(layer.bias, nn.Parameter):
                layer.bias.requires_grad_(False)

    def forward(self, features: Features) -> Tensor:
        return sum_of(self.unimodal(features).values())

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        weights = self.weights()
        return {
            name: project(
                partial(cosine_logits, weight=weights[name], scale=self.scale), z, self.pool
            )
            for name, z in self.parts(features).items()
        }

    def weights(self) -> dict[str, Tensor]:
        """The class weights of each modality, (outputs, width) each."""
        if isinstance(self.inner, Sum):
            return {name: self.inner.linears[name].get_parameter("weight") for name in self.widths}
        crossed = isinstance(self.inner, (Gated, FiLM))
        sizes = [self.inner.dim if crossed else width for width in self.widths.values()]
        parts = self.inner.linear.weight.split(sizes, dim=1)
        return dict(zip(self.widths, parts, strict=True))

    def parts(self, features: Features) -> dict[str, Feature]:
        """The features that the last layer reads, of those modalities that are there."""
        there = [name for name in self.widths if name in features]
        if isinstance(self.inner, (Concat, Sum)):
            return {name: features[name] for name in there}
        pooled = {name: vector(features[name]) for name in there}
        some = pooled[there[0]]
        full = {m: pooled.get(m, some.new_zeros(len(some), w)) for m, w in self.widths.items()}
        crossed = self.inner.crossed(full)
        return {name: crossed[name] for name in there}

    def branch(self, modality: str) -> list[nn.Parameter]:
        return [p for p in self.inner.branch(modality) if p.requires_grad]
