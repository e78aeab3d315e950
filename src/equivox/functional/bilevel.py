"""The weight between two losses, judged by what it does to a loss on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivox.functional.gradients import flat_dot

if TYPE_CHECKING:
    from jaxtyping import Float

Losses = Callable[[], tuple[Tensor, Tensor]]
"""Two losses of a batch, (L, A), at the parameters' present values."""


def hypergradient(
    losses: Losses,
    held_out: Losses,
    parameters: Sequence[Tensor],
    alpha: Float[Tensor, ""],
    rate: float,
) -> Float[Tensor, ""]:
    """d L^val(theta') / d alpha = -rate <grad L^val(theta'), grad A - grad L>.

    theta' = theta - rate grad[(1 - alpha) L + alpha A]. The parameters are left at theta'.

    :param losses: (L, A) of a training batch.
    :param held_out: The same of a held-out batch.

    >>> theta = torch.tensor([1.0], requires_grad=True)
    >>> losses = lambda: ((theta - 2).square().sum(), (theta + 1).square().sum())
    >>> hypergradient(losses, losses, [theta], torch.tensor(0.3), rate=0.1)
    tensor(1.1760)
    """
    loss, other = losses()
    g_loss, g_other = _gradients(loss, parameters), _gradients(other, parameters)
    with torch.no_grad():
        for p, a, b in zip(parameters, g_loss, g_other, strict=True):
            p -= rate * ((1 - alpha) * a + alpha * b)
    g_val = _gradients(held_out()[0], parameters)
    return -rate * (flat_dot(g_val, g_other) - flat_dot(g_val, g_loss))


def mean_curvature(
    losses: Losses, parameters: Sequence[Tensor], alpha: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """The mean of H grad L over the entries of the first parameter alone.

    H is the Hessian of (1 - alpha) L + alpha A in all parameters.

    >>> theta = torch.tensor([3.0], requires_grad=True)
    >>> losses = lambda: (theta.square().sum(), theta.sum())
    >>> mean_curvature(losses, [theta], torch.tensor(0.5))
    tensor(6.)
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        loss, other = losses()
    g_total = _gradients((1 - alpha) * loss + alpha * other, parameters, create_graph=True)
    g_loss = _gradients(loss, parameters)
    product = torch.stack([(a * b).sum() for a, b in zip(g_total, g_loss, strict=True)]).sum()
    return _gradients(product, parameters[:1])[0].mean()


def _gradients(
    loss: Tensor, parameters: Sequence[Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        loss,
        list(parameters),
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
