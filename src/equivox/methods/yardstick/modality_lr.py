"""Modality learning rates: one for each encoder (a yardstick)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from equivox.arguments import names, number
from equivox.method import Method

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.task import Task


class ModalityLR(Method):
    """Multiply the learning rate of each encoder by a factor of its own.

    The encoder's parameters move to an optimizer group with `factor` times the rate that they had,
    so schedulers keep the ratio. Fusion, heads and parameters that encoders share keep their rate.

    Arguments:
        factors: by modality; one for those that are not named, zero leaves an encoder as it is.

    Raises ValueError for a negative factor, and, when bound, for an unknown modality.

    >>> ModalityLR(factors={"video": 3.0})
    ModalityLR(factors={'video': 3.0})
    """

    category = "yardstick"
    neutral: ClassVar[Mapping[str, Any]] = {"factors": {}}

    def __init__(self, *, factors: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.factors = {
            modality: number(f"factors[{modality!r}]", factor, least=0)
            for modality, factor in (factors or {}).items()
        }
        self._owned: dict[str, list[nn.Parameter]] = {}

    @classmethod
    def space(cls, modalities: Sequence[str]) -> Mapping[str, Any]:
        return {"factors": [{m: factor} for factor in (3.0, 0.3, 10.0, 0.1) for m in modalities]}

    def setup(self, model: Multimodal, task: Task) -> Task:
        names("factors", self.factors, model.modalities)
        self._owned = {m: model.encoder_parameters(m) for m in self.factors}
        return task

    def groups(self) -> list[dict[str, Any]]:
        return [
            {"params": parameters, "lr_scale": self.factors[modality]}
            for modality, parameters in self._owned.items()
        ]
