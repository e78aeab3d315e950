"""Factors on the learning rates of modalities: who improves, who lags, how the two combine."""

from __future__ import annotations

from collections.abc import Mapping
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


def running_mean(
    old: Float[Tensor, " modalities"], new: Float[Tensor, " modalities"], beta: float
) -> Float[Tensor, " modalities"]:
    """beta old + (1 - beta) new, and `new` where there is no positive `old` yet.

    >>> running_mean(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 2.0]), beta=0.5)
    tensor([2.0000, 1.5000])
    """
    return torch.where(old > 0, torch.lerp(new, old, beta), new)


def speed_ratios(
    generalisation: Mapping[str, Float[Tensor, ""]], overfitting: Mapping[str, Float[Tensor, ""]]
) -> dict[str, Float[Tensor, ""]]:
    """r = softmax_k(max(G_k, 1e-6) / max(O_k, 1e-6)): the larger, the sounder a branch learns.

    Source: Online Logit Modulation (IJCAI 2024).

    >>> half, one = torch.tensor(0.5), torch.tensor(1.0)
    >>> speed_ratios({"a": half, "b": half}, {"a": one, "b": one})
    {'a': tensor(0.5000), 'b': tensor(0.5000)}
    """
    quotients = [
        gain.clamp(min=1e-6) / overfitting[k].clamp(min=1e-6) for k, gain in generalisation.items()
    ]
    return dict(zip(generalisation, torch.stack(quotients).softmax(0).unbind(), strict=True))
