"""Modality dropout: samples lose modalities at random in training (a yardstick)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from equivox.arguments import number
from equivox.method import Method

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from equivox.features import Features
    from equivox.step import Step


def kept_modalities(
    draws: Float[Tensor, "batch modalities"], p: float
) -> Bool[Tensor, "batch modalities"]:
    """Keep what draws p or more, and always the highest draw of a sample.

    >>> import torch
    >>> kept_modalities(torch.tensor([[0.1, 0.9], [0.2, 0.1]]), p=0.5)
    tensor([[False,  True],
            [ True, False]])
    """
    return (draws >= p) | (draws == draws.amax(1, keepdim=True))


class ModalityDropout(Method):
    """Blank each modality of each sample with probability p; one is always kept.

    Every modality of a sample draws a uniform number and is kept where it is p or more, or the
    highest of the sample. So modalities fall independently of each other, and where all would fall,
    which happens with probability p^M, one of them, each equally likely, stays. A modality falls
    with probability p - p^M / M in all. Nothing is rescaled, and prediction uses all modalities.

    What stands for a dropped feature is the model's blank. Modalities that a sample lacks anyway
    take no part.

    Arguments:
        p: 0 is joint training, 1 keeps exactly one modality a sample.

    Raises ValueError for a `p` outside [0, 1].

    Source: after Neverova et al., "ModDrop" (TPAMI 2016), which drops inputs; here it is features.

    >>> ModalityDropout(p=0.3)
    ModalityDropout(p=0.3)
    """

    category = "yardstick"
    search_space: ClassVar[Mapping[str, Any]] = {"p": (0.1, 0.2, 0.3, 0.5)}
    neutral: ClassVar[Mapping[str, Any]] = {"p": 0.0}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "each micro-batch draws for its own rows"
    }

    def __init__(self, *, p: float = 0.2) -> None:
        super().__init__()
        self.p = number("p", p, least=0, most=1)

    def features(self, features: Features, step: Step) -> Features:
        draws = step.uniform_rows(len(step.model.modalities))
        if (there := step.there()) is not None:
            draws = draws.where(there, -1.0)
        absent = draws < 0
        return step.model.blanked(features, kept_modalities(draws, self.p) | absent)
