"""How far one modality is ahead of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.fusion import sum_of

if TYPE_CHECKING:
    from jaxtyping import Float


def mean_of_others(scores: Mapping[str, Float[Tensor, "*shape"]]) -> dict[str, Tensor]:
    """For each modality the mean score of all the others; a single modality gets its own.

    >>> mean_of_others({"audio": torch.tensor(1.0), "video": torch.tensor(3.0)})
    {'audio': tensor(3.), 'video': tensor(1.)}
    """
    return {name: torch.stack([*_others(scores, name)]).mean(0) for name in scores}


def ratio_to_others(
    scores: Mapping[str, Float[Tensor, "*shape"]], eps: float = 1e-8
) -> dict[str, Tensor]:
    """rho_m, the mean over the others j of S_m / (S_j + eps): above one where m is ahead.

    The modality with the lowest score never exceeds one, and equal scores give at most one, in
    floating point too. A single modality is compared with itself.

    :param scores: S_m >= 0, a sum or mean over samples, already reduced over ranks.
    :param eps: Keeps the ratio finite where another modality's score is zero.

    Source: On-the-fly Modulation for Balanced Multimodal Learning (TPAMI 2024); for two modalities
    the ratio of OGM-GE (CVPR 2022).

    >>> ratio_to_others({"audio": torch.tensor(3.0), "video": torch.tensor(2.0)})
    {'audio': tensor(1.5000), 'video': tensor(0.6667)}
    """
    # Divide one by one: S_m times a mean of reciprocals may round to above one at a tie.
    return {
        name: torch.stack([score / (other + eps) for other in _others(scores, name)]).mean(0)
        for name, score in scores.items()
    }


def weak_modality(scores: Mapping[str, float], sigma: float = 1.0, tau: float = 0.01) -> str | None:
    """The modality that the others leave behind, or None within the dead zone.

    Two: r = s_1 / s_2; the second where r > sigma + tau, the first where r < sigma - tau. More: the
    weakest where its ratio to the strongest is so large.

    Source: sustained boosting (NeurIPS 2025); more than two are ours.

    >>> weak_modality({"audio": 1.02, "video": 1.0}), weak_modality({"audio": 1.0, "video": 1.0})
    ('video', None)
    """
    if len(scores) < 2:
        return None
    tiny = 1e-12
    if len(scores) == 2:
        (first, a), (second, b) = scores.items()
        ratio = (a + tiny) / (b + tiny)
        return second if ratio > sigma + tau else first if ratio < sigma - tau else None
    weakest = min(scores, key=lambda m: scores[m])
    ratio = (max(scores.values()) + tiny) / (scores[weakest] + tiny)
    return weakest if ratio > sigma + tau else None


def _others(scores: Mapping[str, Tensor], name: str) -> Iterator[Tensor]:
    yield from [score for other, score in scores.items() if other != name] or [scores[name]]


def discrepancies(losses: Mapping[str, Float[Tensor, "*shape"]]) -> dict[str, Tensor]:
    """r_m = exp(mean over the others j of s_j - s_m), of losses s: above one where m is ahead.

    Source: Boosting Multi-modal Model Performance with Adaptive Gradient Modulation (ICCV 2023).

    >>> discrepancies({"audio": torch.tensor(0.5), "video": torch.tensor(0.5)})
    {'audio': tensor(1.), 'video': tensor(1.)}
    """
    others = mean_of_others(losses)
    return {m: torch.exp(others[m] - s) for m, s in losses.items()}


def factors_by_discrepancy(
    losses: Mapping[str, Float[Tensor, ""]],
    usual: Mapping[str, Float[Tensor, ""]],
    alpha: float,
    cap: float | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """kappa_m = exp(alpha min(tau_m - r_m, cap)): below one where m is further ahead than usual.

    r_m are the `discrepancies` of these losses, tau_m those of the usual ones.

    >>> now = {"audio": torch.tensor(0.511633), "video": torch.tensor(0.933113)}
    >>> factors_by_discrepancy(now, dict.fromkeys(now, torch.tensor(0.0)), alpha=1.5)
    {'audio': tensor(0.4555), 'video': tensor(1.6751)}
    """
    r, tau = discrepancies(losses), discrepancies(usual)
    lag = {m: tau[m] - r[m] for m in losses}
    return {m: torch.exp(alpha * (x if cap is None else x.clamp(max=cap))) for m, x in lag.items()}


def lags_and_leads(
    scores: Mapping[str, Float[Tensor, "*shape"]], hard: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How far each modality is behind the mean of the others, and how far ahead, both in [0, 1].

    With rho_m = S_m / mean over the others j of S_j: clip(1 / rho_m - 1, 0, 1) and
    clip(rho_m - 1, 0, 1). `hard`: one where rho_m < 1, and zeros.

    Source: PMR: Prototypical Modal Rebalance for Multimodal Learning (CVPR 2023); `hard` is the
    released code.

    >>> lags, leads = lags_and_leads({"a": torch.tensor(1.2), "v": torch.tensor(1.0)})
    >>> lags["v"], leads["a"], lags["a"]
    (tensor(0.2000), tensor(0.2000), tensor(0.))
    """
    others = mean_of_others(scores)
    if hard:
        lags = {m: (s < others[m]).to(s.dtype) for m, s in scores.items()}
        return lags, {m: torch.zeros_like(s) for m, s in scores.items()}
    lags = {m: _excess(others[m], s) for m, s in scores.items()}
    return lags, {m: _excess(s, others[m]) for m, s in scores.items()}


def _excess(score: Tensor, other: Tensor) -> Tensor:
    return (score / other.clamp(min=torch.finfo(other.dtype).tiny) - 1).clamp(0, 1)


def share_of_others(gains: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """B_m = (S - Delta_m) / S with S = sum_m Delta_m + 1e-8, in float64; 1 for a single modality.

    B is negative where one modality gains more than all together, and about 1e8 Delta_m in size
    where the gains cancel exactly.

    Source: Classifier-guided Gradient Modulation (NeurIPS 2024).

    >>> share_of_others({"audio": torch.tensor(0.125), "video": torch.tensor(0.375)})
    {'audio': tensor(0.7500, dtype=torch.float64), 'video': tensor(0.2500, dtype=torch.float64)}
    """
    wide = {m: gain.double() for m, gain in gains.items()}
    total = sum_of(wide.values()) + 1e-8
    if len(wide) == 1:
        return {m: torch.ones_like(gain) for m, gain in wide.items()}
    return {m: (total - gain) / total for m, gain in wide.items()}


def lead_over_worse(scores: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """Delta_m, the mean of s_m - s_j over the modalities j that are worse; 0 where none is.

    Source: Adaptive Unimodal Regulation (CVPR 2025).

    >>> lead_over_worse({"audio": torch.tensor(-0.5), "video": torch.tensor(-1.5)})
    {'audio': tensor(1.), 'video': tensor(0.)}
    """
    every = torch.stack(list(scores.values()))
    gaps = {m: (s - every).clamp(min=0) for m, s in scores.items()}
    return {m: gap.sum() / (gap > 0).sum().clamp(min=1) for m, gap in gaps.items()}


def regulation_strength(delta: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
    """alpha = exp(beta tanh(Delta)), and 0 where Delta is 0: nothing is to be regulated.

    Source: Adaptive Unimodal Regulation (CVPR 2025).

    >>> regulation_strength(torch.tensor(0.5), beta=0.9)
    tensor(1.5157)
    """
    return torch.where(delta > 0, torch.exp(beta * torch.tanh(delta)), torch.zeros_like(delta))
