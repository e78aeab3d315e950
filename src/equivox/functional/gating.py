"""What a modality weighs in the fusion: by how well it answers and how fast it improves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def geometric_mean_ratio(
    fused: Float[Tensor, ""], alone: Float[Tensor, " modalities"]
) -> Float[Tensor, ""]:
    """GMR = (prod_m q / q_m)^(1/M): above one where fusion beats the typical modality.

    >>> import torch
    >>> geometric_mean_ratio(torch.tensor(0.8), torch.tensor([0.4, 0.8]))
    tensor(1.4142)
    """
    return (fused.clamp(min=1e-6).log() - alone.clamp(min=1e-6).log().mean()).exp()


def harmonic_mean_rate(rates: Float[Tensor, " modalities"]) -> Float[Tensor, ""]:
    """HMIR = M / sum_m 1 / g_m: low where any modality stalls.

    >>> import torch
    >>> harmonic_mean_rate(torch.tensor([0.1, 0.3]))
    tensor(0.1500)
    """
    return len(rates) / rates.reciprocal().sum()


def modality_gates(
    q: Float[Tensor, " modalities"],
    rates: Float[Tensor, " modalities"],
    balance: Float[Tensor, ""] | float,
    temperature: float,
) -> Float[Tensor, " modalities"]:
    """M softmax(s / temperature), s = balance q / sum q + (1 - balance) g / sum g; their mean is 1.

    >>> import torch
    >>> modality_gates(torch.tensor([0.5, 0.5]), torch.tensor([0.1, 0.1]), 0.3, 0.5)
    tensor([1., 1.])
    """
    scores = balance * q / q.sum().clamp(min=1e-6) + (1 - balance) * rates / rates.sum()
    return len(q) * (scores / temperature).softmax(0)
