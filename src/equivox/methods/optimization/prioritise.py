"""Prioritise: OGM with the sign turned, which favours the stronger modality (a control)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.methods.optimization.ogm_ge import OGMGE

if TYPE_CHECKING:
    from jaxtyping import Float


def priority_coefficients(
    scores: Mapping[str, Float[Tensor, ""]], alpha: float
) -> dict[str, Float[Tensor, ""]]:
    """k_m = 1 - tanh(alpha s* / s_m) where s_m is below s* = max_j s_j, one else.

    >>> priority_coefficients({"audio": torch.tensor(60.0), "video": torch.tensor(20.0)}, alpha=0.3)
    {'audio': tensor(1.), 'video': tensor(0.2837)}
    """
    best = torch.stack(list(scores.values())).max()
    return {
        m: torch.where(
            s < best, 1 - torch.tanh(alpha * best / s.clamp(min=1e-8)), torch.ones_like(s)
        )
        for m, s in scores.items()
    }


class Prioritise(OGMGE):
    """Slow down the encoders of all modalities but the strongest: the exact mirror of OGM.

    A control of this library, not a published method: a reconstruction, as small as possible, of
    the claim that the *better* modality should be favoured. Where OGM and its mirror both gain,
    the gain comes from what they share.

    g <- k_m g for every tensor of encoder m that `OGMGE` changes, with its scores s_m.

    Arguments:
        alpha: strength, as in `OGMGE`; zero is joint training.
        noise: True adds OGM-GE's noise.
        starts, ends: first and last epoch, counted from 0, in which it acts.

    Source: after ARL (ICCV 2025, arXiv 2507.10203) and PDMP (arXiv 2604.05773).

    >>> Prioritise(alpha=0.5)
    Prioritise(alpha=0.5, noise=False, starts=0, ends=None)
    """

    fidelity = "reconstruction"
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0}

    def __init__(
        self, *, alpha: float = 0.3, noise: bool = False, starts: int = 0, ends: int | None = None
    ) -> None:
        super().__init__(alpha=alpha, noise=noise, starts=starts, ends=ends)

    def coefficients(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return priority_coefficients(scores, self.alpha)
