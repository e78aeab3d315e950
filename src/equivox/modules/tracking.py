"""Adaptive tracking factors: learning rates that follow losses and gradients, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivox.functional.gradients import flat_cosine
from equivox.functional.learning_rates import lag, running_mean, tracking_factors
from equivox.modules.constants import constants

if TYPE_CHECKING:
    from jaxtyping import Float


class Tracker(nn.Module):
    """lambda_m <- clip(M u_m / sum_k u_k), with u_m = lambda_m exp(eta h_m) rho_m^kappa.

    h_m is the cosine of the modality's gradient and that before, and rho_m = c_m / mean(c), c_m the
    running mean of its loss relative to what it was when the factors first moved.

    Arguments: `encoders`, the parameters by modality; `eta`, `kappa`; `beta` of the running mean;
    `bounds` of the factors.

    >>> w = nn.Parameter(torch.ones(2))
    >>> w.grad = torch.ones(2)
    >>> tracker, rates = Tracker({"audio": [w]}, 0.01, 0.5, 0.9, (0.1, 10.0)), torch.ones(1)
    >>> tracker.track_(rates, {"audio": torch.tensor(0.7)}, {"audio": [w]}, moves=True)
    >>> rates, tracker.ema
    (tensor([1.]), tensor([0.7000]))
    """

    ema: Tensor
    reference: Tensor

    def __init__(
        self,
        encoders: Mapping[str, Sequence[nn.Parameter]],
        eta: float,
        kappa: float,
        beta: float,
        bounds: tuple[float, float],
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoders)
        self.eta = eta
        self.kappa = kappa
        self.beta = beta
        self.bounds = bounds
        self.register_buffer("ema", torch.zeros(len(encoders)))
        self.register_buffer("reference", torch.zeros(len(encoders)))
        zeros = {m: [torch.zeros_like(p) for p in ps] for m, ps in encoders.items()}
        self.previous = nn.ModuleDict({m: constants(x) for m, x in zeros.items()})

    @torch.no_grad()
    def track_(
        self,
        rates: Float[Tensor, " modalities"],
        losses: Mapping[str, Float[Tensor, ""]],
        learning: Mapping[str, Sequence[nn.Parameter]],
        moves: bool,
    ) -> None:
        """Take in the losses and gradients of what is learning; if it `moves`, change the rates.

        `learning` holds the parameters of the encoders that learn; the others' state stays.
        """
        if not learning:
            return
        at = [self.modalities.index(m) for m in learning]
        new, old = torch.stack([losses[m] for m in learning]), _at(self.ema, at)
        ema = running_mean(old, new, self.beta)
        _put_(self.ema, at, ema)
        h = torch.stack([self._cosine(m, encoder) for m, encoder in learning.items()])
        if moves:
            known = _at(self.reference, at)
            reference = torch.where(known > 0, known, torch.where(old > 0, old, new))
            _put_(self.reference, at, reference)
            rho = lag(ema, reference)
            found = tracking_factors(_at(rates, at), h, rho, self.eta, self.kappa)
            _put_(rates, at, found.clamp(*self.bounds))

    def _cosine(self, modality: str, encoder: Sequence[nn.Parameter]) -> Tensor:
        """h_m, of this gradient and the one before, which it replaces."""
        kept: list[Tensor] = list(self.previous[modality].parameters())
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in encoder]
        h = flat_cosine(gradient, kept)
        torch._foreach_copy_(kept, gradient)
        return h


# One by one: a list of places would be copied to the device, which waits for it.


def _at(x: Tensor, places: Sequence[int]) -> Tensor:
    return torch.stack([x[i] for i in places])


def _put_(x: Tensor, places: Sequence[int], values: Tensor) -> None:
    for i, value in zip(places, values.unbind(), strict=True):
        x[i] = value
