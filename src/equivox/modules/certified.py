"""A fusion of which the margins can be certified, and how steep its answers are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from equivox.features import Features, vector
from equivox.functional.certificate import input_slopes, row_normalised
from equivox.fusion import Fusion, sum_of
from equivox.model import evaluating

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.method import Batch
    from equivox.model import Multimodal, Output
    from equivox.run import Run


class CertifiedFusion(Fusion):
    """f = sum_m a^m * h^m + b with h^m = z^m W~^m, and rows of W~^m centred and of length one.

    Arguments: `orthogonal` makes the rows of a modality orthogonal too, as the paper's text.

    Source: CRMT (ICLR 2024).

    >>> CertifiedFusion({"audio": 4, "video": 3}, 2)({"audio": torch.ones(5, 4)}).shape
    torch.Size([5, 2])
    """

    partial = True

    def __init__(self, widths: Mapping[str, int], outputs: int, orthogonal: bool = False) -> None:
        super().__init__(widths, outputs)
        self.orthogonal = orthogonal
        self.raw = nn.ParameterDict({m: nn.Linear(w, outputs).weight for m, w in widths.items()})
        self.scales = nn.ParameterDict({m: torch.full((outputs,), 0.1) for m in widths})
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Features) -> Tensor:
        parts = self.parts(features)
        return sum_of(self.scales[m] * h for m, h in parts.items()) + self.bias

    def parts(self, features: Features) -> dict[str, Float[Tensor, "batch outputs"]]:
        """h^m of the modalities that are there."""
        return {
            m: nn.functional.linear(vector(features[m]), row_normalised(v, self.orthogonal))
            for m, v in self.raw.items()
            if m in features
        }

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        bias = self.bias / len(self.widths)
        return {m: self.scales[m] * h + bias for m, h in self.parts(features).items()}

    def branch(self, modality: str) -> list[nn.Parameter]:
        return [self.raw[modality], self.scales[modality]]


def slopes(model: Multimodal, modality: str, batch: Batch) -> Float[Tensor, "batch outputs"]:
    """|d h_k / d x| of every sample and output of one modality, in a model with that fusion."""
    present = {k: v for k, v in batch.inputs.items() if k == "present"}

    def answer(x: Any) -> Tensor:
        with evaluating(model):
            features = model.encode({modality: x, **present})
        return cast(CertifiedFusion, model.fusion).parts(features)[modality]

    return input_slopes(answer, batch.inputs[modality])


def steepest(run: Run, batches: int | None = None) -> Float[Tensor, "modalities outputs"]:
    """tau^m_k = max_x |d h^m_k / d x^m| over the training data, in eval mode.

    :param batches: How many of the loader are looked at; None is all.
    """

    def what(output: Output, batch: Batch) -> dict[str, Tensor]:
        zero = torch.zeros(output.logits.shape, device=output.logits.device)
        absent = {m for m, there in batch.inputs.get("present", {}).items() if there is False}
        return {
            m: slopes(run.model, m, batch) if m in batch.inputs and m not in absent else zero
            for m in run.model.modalities
        }

    rows = run.collect(islice(run.loader, batches), what)
    return torch.stack([rows[m].amax(0) for m in run.model.modalities])
