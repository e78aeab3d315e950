"""UME: On Uni-Modal Feature Learning in Supervised Multi-Modal Learning (ICML 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, names
from equivox.methods.yardstick.alone import Independent
from equivox.methods.yardstick.ensemble import mean_prediction, shares_of

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.task import Task


class UME(Independent):
    """An ensemble of unimodal models: each is trained alone, their predictions are averaged.

    p = sum_m omega_m p(z_m), with z_m the logits of modality m's own head. The fusion does not
    learn. Regression averages predictions, multi-label tasks each label's probability. Where a
    batch lacks a modality the weights of the others are divided by their sum. `Ensemble` is the
    same with temperatures and weights chosen on validation data.

    Arguments:
        weights: omega by modality, divided by their sum; uniform by default, as in the paper. A
            modality that is not named has none.
        average: "probabilities", or "logits".

    Raises ValueError for weights that are negative or all zero, for other values of `average`, and,
    when bound, for an unknown modality.

    Source: Du et al., ICML 2023; no code was released.

    >>> UME(weights={"audio": 1.0, "video": 2.0})
    UME(weights={'audio': 1.0, 'video': 2.0}, average='probabilities')
    """

    category = "objective"
    fidelity = "reconstruction"
    search_space: ClassVar[Mapping[str, Any]] = {"average": ("probabilities", "logits")}

    def __init__(
        self, *, weights: Mapping[str, float] | None = None, average: str = "probabilities"
    ) -> None:
        super().__init__()
        if weights is not None and (
            min(weights.values(), default=0) < 0 or not any(weights.values())
        ):
            raise ValueError(
                f"`weights` should be zero or more, and not all zero. Found `weights = {weights}`."
            )
        self.weights = None if weights is None else dict(weights)
        self.average = choice("average", average, ("probabilities", "logits"))

    def setup(self, model: Multimodal, task: Task) -> Task:
        names("weights", self.weights or (), model.modalities)
        self.task = task
        return task

    def predict(self, output: Output) -> Tensor:
        said = output.unimodal
        given = dict.fromkeys(said, 1.0) if self.weights is None else self.weights
        some = next(iter(said.values()))
        weights = some.new_tensor([given.get(m, 0.0) for m in said], dtype=torch.float32)
        if self.average == "logits":
            shares = shares_of(weights).to(some.dtype)
            return torch.tensordot(shares, torch.stack(list(said.values())), dims=1)
        return mean_prediction(self.task, said, weights)
