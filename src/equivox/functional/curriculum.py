"""A curriculum: how hard samples are, and what they weigh as training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.functional.divergence import js_divergence
from equivox.functional.outcomes import log_probabilities, row_means
from equivox.fusion import sum_of
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.task import Task


def sample_metrics(
    fused: Float[Tensor, " batch *outputs"],
    alone: Mapping[str, Float[Tensor, " batch *outputs"]],
    target: Any,
    task: Task,
) -> Float[Tensor, "metrics batch"]:
    """Deviation, consistency and stability of every sample; the higher, the harder.

    d = l(z) + sum_m omega_m l(z_m), omega the softmax over modalities of -l(z_m); c the mean
    Jensen-Shannon divergence of p_m and p; h the mean entropy of p_m, over its maximum.
    Regression has squared differences of the predictions for c, and h = 0.
    """
    losses = torch.stack([task.loss(z.float(), target, reduction="none") for z in alone.values()])
    fused_loss = task.loss(fused.float(), target, reduction="none")
    deviation = fused_loss + ((-losses).softmax(0) * losses).sum(0)
    if isinstance(task, Regression):  # numbers, not distributions
        apart = [row_means((z.float() - fused.float()).square()) for z in alone.values()]
        return torch.stack([deviation, sum_of(apart) / len(alone), torch.zeros_like(deviation)])
    labels = isinstance(task, MultiLabel)
    p = log_probabilities(fused, labels)
    said = [log_probabilities(z, labels) for z in alone.values()]
    consistency = sum_of(row_means(js_divergence(q, p)) for q in said) / len(said)
    entropy = sum_of(row_means(-(q.exp() * q).sum(1)) for q in said) / len(said)
    return torch.stack([deviation, consistency, entropy / log(max(2, p.shape[1]))])


def curriculum_weights(
    difficulty: Float[Tensor, " batch"], mean: Float[Tensor, ""], slope: float
) -> Float[Tensor, " batch"]:
    """exp(-slope (D - mean D)) within [0.1, 10]: a positive slope prefers easy samples.

    >>> curriculum_weights(torch.tensor([0.0, 1.0]), torch.tensor(0.5), slope=0.0)
    tensor([1., 1.])
    """
    return torch.exp(-slope * (difficulty - mean)).clamp(0.1, 10)
