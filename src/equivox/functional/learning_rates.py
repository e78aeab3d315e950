"""Factors on the learning rates of modalities: who improves, who lags, how the two combine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def dynamic_factors(
    scores: Float[Tensor, " modalities"], history: Float[Tensor, "epochs modalities"]
) -> Float[Tensor, " modalities"]:
    """kappa_m = A_m / mean of its previous A_m; one where they are all zero.

    >>> dynamic_factors(torch.tensor([0.6]), torch.tensor([[0.4], [0.4]]))
    tensor([1.5000])
    """
    mean = history.mean(0)
    return torch.where(mean > 0, scores / mean, torch.ones_like(scores))


def lag(
    means: Float[Tensor, " modalities"], references: Float[Tensor, " modalities"]
) -> Float[Tensor, " modalities"]:
    """rho_m = c_m / mean(c) with c_m = e_m / e_0m: above one for a modality that learns slowly.

    >>> lag(torch.tensor([0.5, 1.5]), torch.ones(2))
    tensor([0.5000, 1.5000])
    """
    c = means.clamp(min=1e-12) / references.clamp(min=1e-12)
    return c / c.mean()


def tracking_factors(
    factors: Float[Tensor, " modalities"],
    cosines: Float[Tensor, " modalities"],
    rho: Float[Tensor, " modalities"],
    eta: float,
    kappa: float,
) -> Float[Tensor, " modalities"]:
    """M u_m / sum_k u_k with u_m = lambda_m exp(eta h_m) rho_m^kappa: their mean is one.

    >>> one = torch.ones(2)
    >>> tracking_factors(one, torch.zeros(2), torch.tensor([0.25, 2.25]), eta=0.01, kappa=0.5)
    tensor([0.5000, 1.5000])
    """
    u = factors * torch.exp(eta * cosines) * rho**kappa
    return len(u) * u / u.sum()
