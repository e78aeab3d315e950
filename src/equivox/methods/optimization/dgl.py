"""DGL: Boosting Multimodal Learning via Disentangled Gradient Learning (ICCV 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from equivox.arguments import choice, number
from equivox.features import Features, map_values
from equivox.method import Method

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.step import Step


@contextmanager
def constant_fusion(model: Multimodal) -> Iterator[None]:
    """Inside, what is computed sends no gradient to the fusion's parameters."""
    learning = [p for p in model.fusion_parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


class DGL(Method):
    """Cut the joint gradient at the features; encoders learn from unimodal losses only.

    L = L(fusion(stop(z_1), …, stop(z_M)), y) + alpha sum_m L(o_m, y), with o_m the logits of
    modality m alone. The fusion learns from the first term only, the encoders (and their own
    heads) from the others. It is a control: whatever gain it has over joint training is a gain
    of unimodal training, without any interplay of the modalities.

    Arguments:
        alpha: weight of the unimodal losses; the authors' scripts use 4 to 5. With zero the
            encoders get no gradient at all.
        heads: "own", a linear head for each modality; or "blanked", as in the authors' scripts,
            the fusion with the other modalities blanked, its parameters being constants there.

    Departures: one backward pass; the authors reach the same with two, deleting gradients between.

    Source: ICCV 2025, arXiv 2507.10213; exact for any task, fusion and number of modalities.

    >>> DGL(alpha=4.0)
    DGL(alpha=4.0, heads='own')
    """

    category = "optimization"
    fidelity = "official"
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {"alpha": (1.0, 0.5, 2.0, 4.0, 8.0)}

    def __init__(self, *, alpha: float = 1.0, heads: str = "own") -> None:
        super().__init__()
        self.alpha = number("alpha", alpha, least=0)
        self.heads = choice("heads", heads, ("own", "blanked"))
        self.leaves_unused = alpha == 0

    def features(self, features: Features, step: Step) -> Features:
        return {m: map_values(Tensor.detach, z) for m, z in features.items()}

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if self.alpha == 0:
            return losses
        alone = step.output.unimodal if self.heads == "own" else _blanked(step)
        return losses | {m: self.alpha * step.loss(logits) for m, logits in alone.items()}


def _blanked(step: Step) -> dict[str, Tensor]:
    """What the fusion says of each modality, the others being blanked."""
    with constant_fusion(step.model):
        said = step.model.fuse_subsets(step.output.features, [{m} for m in step.modalities])
    return {m: said[frozenset({m})] for m in step.modalities}
