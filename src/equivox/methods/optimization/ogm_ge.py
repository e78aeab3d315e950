"""OGM-GE: Balanced Multimodal Learning via On-the-fly Gradient Modulation (CVPR 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number, span
from equivox.functional import ratio_to_others
from equivox.functional.schedules import within
from equivox.method import Method

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.step import Step, Update


def ogm_coefficients(
    scores: Mapping[str, Float[Tensor, ""]], alpha: float, z: str = "tanh"
) -> dict[str, Float[Tensor, ""]]:
    """k_m of Eq. 10: below one for a modality that is ahead of the others, one else.

    k_m = 1 - tanh(alpha rho_m) where rho_m > 1, with rho_m = S_m / S_other; for more modalities the
    mean of the ratios to all others. `z="tanh_minus_one"`: k_m = 1 - alpha tanh(rho_m - 1).

    >>> ogm_coefficients({"audio": torch.tensor(1.871601), "video": torch.tensor(1.0)}, alpha=0.5)
    {'audio': tensor(0.2667), 'video': tensor(1.)}
    """

    def coefficient(rho: Tensor) -> Tensor:
        damped = torch.tanh(alpha * rho) if z == "tanh" else alpha * torch.tanh(rho - 1)
        return torch.where(rho > 1, 1 - damped, torch.ones_like(rho))

    return {m: coefficient(rho) for m, rho in ratio_to_others(scores).items()}


class OGMGE(Method):
    """Slow the encoder of the dominant modality down, and add noise as large as its gradients.

    g <- k_m g + N(0, std(g)²) for every tensor of encoder m that `params` selects; the noise is
    added for all modalities, also where k_m = 1. Scores are the mean probability of the true class
    in each modality's share of the logits, over the whole update. Heads and fusion are untouched.

    Arguments:
        alpha: strength; the authors use 0.8 on CREMA-D and 0.1 on VGGSound.
        noise: False is OGM, without generalisation enhancement.
        starts, ends: first and last epoch, counted from 0, in which it acts; the code's are 0, 50.
        params: "ndim>=2" (weights) or "conv4d", the released code's filter. They select the same
            tensors of a ResNet.
        z: "tanh", or "tanh_minus_one", the form of the extension's text (TPAMI 2024).

    Departures: at an exact tie of the scores nobody is damped (the code damps the first modality).
    For regression and multi-label tasks the score is `exp(-loss)` of the sample.

    Source: Peng et al., CVPR 2022, Eq. 8-12; three and more modalities after TPAMI 2024.

    >>> OGMGE(alpha=0.3)
    OGMGE(alpha=0.3, noise=True, starts=0, ends=None, params='ndim>=2', z='tanh')
    """

    category = "optimization"
    fidelity = "official"
    search_space: ClassVar[Mapping[str, Any]] = {"alpha": (0.1, 0.3, 0.5, 0.8, 1.0)}
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0, "noise": False}

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        noise: bool = True,
        starts: int = 0,
        ends: int | None = None,
        params: str = "ndim>=2",
        z: str = "tanh",
    ) -> None:
        super().__init__()
        self.alpha = number("alpha", alpha, least=0)
        self.noise = noise
        self.starts, self.ends = span(starts, ends)
        self.params = choice("params", params, ("ndim>=2", "conv4d"))
        self.z = choice("z", z, ("tanh", "tanh_minus_one"))

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if within(step.epoch, self.starts, self.ends):
            step.note("score", {m: step.score(o) for m, o in step.output.split.items()})
        return losses

    def gradients(self, update: Update) -> None:
        if not within(update.epoch, self.starts, self.ends):
            return
        for modality, k in self.coefficients(update.mean("score")).items():
            gradients = [g for g in update.gradient(modality) if self._selects(g)]
            if not gradients:  # a modality that only serves in this update
                continue
            noises = [_noise(g, update.generator) for g in gradients] if self.noise else []
            torch._foreach_mul_(gradients, k)
            if noises:
                torch._foreach_add_(gradients, noises)

    def coefficients(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each encoder's gradients are multiplied by, given the scores of the update."""
        return ogm_coefficients(scores, self.alpha, self.z)

    def _selects(self, gradient: Tensor) -> bool:
        return gradient.ndim == 4 if self.params == "conv4d" else gradient.ndim >= 2


def _noise(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """Noise as large as the gradient's entries; none for a single entry, which has no spread."""
    if gradient.numel() < 2:
        return torch.zeros_like(gradient)
    draw = torch.empty_like(gradient).normal_(generator=generator)
    return draw.mul_(gradient.std() + 1e-8)
