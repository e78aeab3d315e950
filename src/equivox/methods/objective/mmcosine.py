"""MMCosine: Multi-Modal Cosine Loss Towards Balanced Fine-Grained Learning (ICASSP 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.features import vector
from equivox.functional import supervised_nce
from equivox.fusion import Concat, FiLM, Gated, Sum
from equivox.method import Method
from equivox.modules.cosine_fusion import CosineFusion
from equivox.task import Classification, MultiLabel

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.step import Step
    from equivox.task import Task


def least_scale(classes: int, modalities: int, confidence: float) -> float:
    """The smallest scale s under which the true class can reach this probability.

    s = (C - 1) / (M C) log((C - 1) p / (1 - p)): at best a share is s for the true class and
    -s / (C - 1) for the others.

    >>> round(least_scale(classes=6, modalities=2, confidence=0.99), 3)
    2.585
    """
    odds = (classes - 1) * confidence / (1 - confidence)
    return (classes - 1) / (modalities * classes) * math.log(odds)


class MMCosine(Method):
    """Put a cosine head in the place of the last linear layer: length no longer tells.

    Logits are sum_m s cos(z_m, W_m), each modality normalised on its own; see `CosineFusion`, which
    replaces the model's fusion and serves training and prediction alike.

    Arguments:
        scale: s; 10 in the released command, 50 and more advised for FiLM and gated fusion. See
            `least_scale`.
        lam: weight of the contrastive term between two modalities' features; 0 in the paper's main
            text.
        temperature: of the contrastive term; 0.1.
        eval_head: "cosine", or "linear": predict with the layer as it was, with its bias, as the
            released CREMA-D script does.

    Departures: the contrastive term of more than two modalities is the mean over their pairs, in
    the order of the modalities. Logits of a multi-label task are divided by the number of
    modalities.

    Raises ValueError for a fusion that does not end in one linear layer on all features, and for
    `lam` above zero with features of unequal widths or a task other than classification.

    Source: Xu et al., ICASSP 2023.

    >>> MMCosine(scale=15.0)
    MMCosine(scale=15.0, lam=0.0, temperature=0.1, eval_head='cosine')
    """

    category = "objective"
    fidelity = "official"
    tasks = ("Classification", "MultiLabel", "Dense")
    replaces_fusion = True
    exceptions: ClassVar[Mapping[str, str]] = {
        "trains_sequences": "An attention fusion does not end in one linear layer on all features.",
        "trains_adopted": "The last layer of an adopted network cannot be split by modality.",
    }
    search_space: ClassVar[Mapping[str, Any]] = {"scale": (10.0, 15.0, 5.0, 1.0, 50.0)}

    def __init__(
        self,
        *,
        scale: float = 10.0,
        lam: float = 0.0,
        temperature: float = 0.1,
        eval_head: str = "cosine",
    ) -> None:
        super().__init__()
        self.scale = number("scale", scale, above=0)
        self.lam = number("lam", lam, least=0)
        self.temperature = number("temperature", temperature, above=0)
        self.eval_head = choice("eval_head", eval_head, ("cosine", "linear"))

    def setup(self, model: Multimodal, task: Task) -> Task:
        if self.lam > 0:
            _check_contrast(model, task)
        fusion = model.fusion.inner if isinstance(model.fusion, CosineFusion) else model.fusion
        if not isinstance(fusion, (Concat, Sum, Gated, FiLM)):
            raise ValueError(
                "`MMCosine` needs a fusion that ends in one linear layer on all features. Found "
                f"`{type(fusion).__name__}`. Use `Concat`, `Sum`, `Gated` or `FiLM`."
            )
        several = len(model.modalities) if isinstance(task, MultiLabel) else 1
        model.fusion = CosineFusion(fusion, self.scale / several)
        return task

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if self.lam == 0 or len(step.modalities) < 2:
            return losses
        fusion = cast(CosineFusion, step.model.fusion)
        vectors = [vector(z) for z in fusion.parts(step.output.features).values()]
        pairs = [
            supervised_nce(first, second, step.target, self.temperature)
            for first, second in combinations(vectors, 2)
        ]
        return losses | {"contrast": self.lam * torch.stack(pairs).mean()}

    def predict(self, output: Output) -> Tensor:
        if self.eval_head == "cosine":
            return output.logits
        return _linear(output)

    def overrides(self, *stages: str) -> bool:
        # With the cosine head it predicts as any model does, and may be chained with who does not.
        own = [s for s in stages if s != "predict" or self.eval_head == "linear"]
        return super().overrides(*own)


def _linear(output: Output) -> Tensor:
    """What the fusion says without the cosine head."""
    model = output.model
    fusion = cast(CosineFusion, model.fusion)
    model.fusion = fusion.inner
    try:
        return model.fused(output.features).logits
    finally:
        model.fusion = fusion


def _check_contrast(model: Multimodal, task: Task) -> None:
    if not isinstance(task, Classification):
        raise ValueError(
            f"`lam > 0` contrasts classes. Found `{type(task).__name__}`. Use `lam=0.0`."
        )
    if len(set(model.widths.values())) > 1:
        raise ValueError(
            f"`lam > 0` compares features of one width. Found {model.widths}. Use `lam=0.0`, or "
            "encoders of equal width."
        )
