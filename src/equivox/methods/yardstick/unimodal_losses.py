"""Unimodal losses: joint training plus a loss of every modality by itself (a yardstick)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from equivox.arguments import choice, number
from equivox.method import Method
from equivox.methods.yardstick.alone import HEADS, unimodal_losses

if TYPE_CHECKING:
    from equivox.step import Step


class UnimodalLosses(Method):
    """Minimise L + gamma sum_m L_m, where L_m is the task's loss of modality m alone.

    Arguments:
        gamma: weight of the unimodal losses; in use are 1, and up to 8.
        heads: "own", a linear head for each modality; "split", its share of the fused logits.

    Raises ValueError for a negative `gamma` or other `heads`.

    >>> UnimodalLosses(gamma=2.0)
    UnimodalLosses(gamma=2.0, heads='own')
    """

    category = "yardstick"
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "gamma": (0.5, 1.0, 2.0, 4.0, 8.0),
        "heads": ("own", "split"),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"gamma": 0.0}

    def __init__(self, *, gamma: float = 1.0, heads: str = "own") -> None:
        super().__init__()
        self.gamma = number("gamma", gamma, least=0)
        self.heads = choice("heads", heads, HEADS)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        said = step.output.unimodal if self.heads == "own" else step.output.split
        alone = unimodal_losses(step, said)
        return losses | {modality: self.gamma * loss for modality, loss in alone.items()}
