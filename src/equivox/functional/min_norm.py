"""The shortest convex combination of gradients, from their inner products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def min_norm_pair(
    a11: Float[Tensor, ""], a12: Float[Tensor, ""], a22: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """The weight k of g1 for which |k g1 + (1 - k) g2| is smallest, as MMPareto bounds it.

    k = (a22 - a12) / (a11 + a22 - 2 a12) inside the segment; at its ends .999 (a12 >= a11: g1 is
    the shortest) or .001 (a12 >= a22), so that neither gradient is ever dropped.

    :param a11: The inner product <g1, g1>.
    :param a12: The inner product <g1, g2>.
    :param a22: The inner product <g2, g2>.

    Source: MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance (ICML 2024).

    >>> min_norm_pair(torch.tensor(1.0), torch.tensor(-2.0), torch.tensor(8.0))
    tensor(0.7692)
    """
    beyond_first, beyond_second = a11 - a12, a22 - a12
    inside = beyond_second / (beyond_first + beyond_second)
    k = torch.where(beyond_second <= 0, 0.001, inside)
    return torch.where(beyond_first <= 0, 0.999, k)


def min_norm_weights(
    gramian: Float[Tensor, "losses losses"], iterations: int = 30
) -> Float[Tensor, " losses"]:
    """The weights of the shortest convex combination of any number of gradients.

    Minimises w' G w over w >= 0, sum w = 1, by a primal-dual interior point method: a fixed number
    of small linear systems in float64 and no branch on a tensor, hence no synchronisation with a
    GPU. Up to rounding it is the exact solution, one of them where several are equally short.

    :param gramian: The inner products G_ij = <g_i, g_j>. Their scale does not matter.
    :param iterations: Each divides the gap to the optimum by up to ten; 30 reach rounding error.

    Source: Désidéri, Multiple-gradient descent algorithm (MGDA) (Comptes Rendus Mathématique
    2012), for the problem.

    >>> min_norm_weights(torch.tensor([[1.0, -2.0], [-2.0, 8.0]]))
    tensor([0.7692, 0.2308])
    """
    g = gramian.double()
    g = g / g.diagonal().sum().clamp_min(torch.finfo(g.dtype).tiny)
    w = torch.full_like(g[0], 1 / len(g))
    slack = g @ w - (g @ w).min() + 1  # the gradient g w minus its multiplier: strictly feasible
    for _ in range(iterations):
        w, slack = _interior_point_step(g, w, slack)
    return (w / w.sum()).to(gramian.dtype)


def _interior_point_step(g: Tensor, w: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """A Newton step towards w * slack = a tenth of its mean, keeping sum(w) = 1."""
    residual = 0.1 * (w @ slack) / len(w) / w - slack
    # Antiparallel or equal gradients make `g` singular on the support: the ridge bounds the step.
    system = g + torch.diag(slack / w + 1e-15)
    solution, _ = torch.linalg.solve_ex(system, torch.stack([residual, torch.ones_like(w)], dim=1))
    free, shift = solution.unbind(1)
    dw = free - free.sum() / shift.sum() * shift
    dslack = residual - slack / w * dw
    nearest_wall = torch.cat([dw / w, dslack / slack]).min()
    length = 0.99 / (-nearest_wall).clamp_min(0.99)
    return w + length * dw, slack + length * dslack
