"""Divergences between distributions given as log-probabilities, along axis 1."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.functional.outcomes import log_probabilities, row_means
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.task import Task


def kl_divergence(
    log_p: Float[Tensor, "batch outcomes *positions"],
    log_q: Float[Tensor, "batch outcomes *positions"],
) -> Float[Tensor, " batch *positions"]:
    """KL(p || q) = sum over outcomes of p (log p - log q), in nats; 0 log 0 = 0.

    Gradients flow into both: detach the teacher of a distillation.

    >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> kl_divergence(p.log(), q.log())
    tensor([0.1438])
    """
    first, second = _finite(log_p), _finite(log_q)
    return (first.exp() * (first - second)).sum(1)


def js_divergence(
    log_p: Float[Tensor, "batch outcomes *positions"],
    log_q: Float[Tensor, "batch outcomes *positions"],
) -> Float[Tensor, " batch *positions"]:
    """Jensen-Shannon: [KL(p || mu) + KL(q || mu)] / 2 with mu = (p + q) / 2; at most log 2.

    >>> p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> js_divergence(p.log(), q.log())
    tensor([0.6931])
    """
    log_mu = log_mixture(log_p, log_q)
    return (kl_divergence(log_p, log_mu) + kl_divergence(log_q, log_mu)) / 2


def mixture_divergence(
    log_p: Float[Tensor, "batch outcomes *positions"],
    log_q: Float[Tensor, "batch outcomes *positions"],
) -> Float[Tensor, " batch *positions"]:
    """[KL(mu || p) + KL(mu || q)] / 2 with mu = (p + q) / 2: the reverse of Jensen-Shannon.

    Unbounded: it grows without limit where one distribution rules out what the other expects.

    Source: Facilitating Multimodal Classification via Dynamically Learning Modality Gap
    (NeurIPS 2024), released code.
    """
    log_mu = log_mixture(log_p, log_q)
    return (kl_divergence(log_mu, log_p) + kl_divergence(log_mu, log_q)) / 2


def disagreement(
    first: Float[Tensor, " batch *outputs"],
    second: Float[Tensor, " batch *outputs"],
    task: Task,
    divergence: Callable[[Tensor, Tensor], Tensor] = js_divergence,
) -> Float[Tensor, " batch"]:
    """How far two predictions, given as logits, are apart on every sample.

    The divergence of the class probabilities, its mean over the labels or the positions of a
    sample; for regression the mean squared difference.

    >>> disagreement(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]), Regression(2))
    tensor([2.])
    """
    if isinstance(task, Regression):
        return row_means((first - second).square())
    log_p, log_q = (log_probabilities(z, isinstance(task, MultiLabel)) for z in (first, second))
    return row_means(divergence(log_p, log_q))


def log_mixture(log_p: Float[Tensor, "*shape"], log_q: Float[Tensor, "*shape"]) -> Tensor:
    """log((p + q) / 2), without leaving the logarithm."""
    return torch.logaddexp(_finite(log_p), _finite(log_q)) - log(2)


def _finite(log_p: Tensor) -> Tensor:
    """-inf becomes the lowest number, of which 0 log 0 = 0 holds, in the gradient too."""
    return log_p.clamp(min=torch.finfo(log_p.dtype).min / 4)
