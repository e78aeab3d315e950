"""Drawing without replacement: units by probabilities, and samples by classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.functional.masking import ranks

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def successive_draws(
    p: Float[Tensor, "*draws n"], k: Float[Tensor, ""], uniform: Float[Tensor, "*draws n"]
) -> Bool[Tensor, "*draws n"]:
    """k distinct units of each row, drawn one after the other with probability ∝ p.

    Unit j waits for an exponential time of rate p_j, and the first k are taken.

    >>> u = torch.tensor([0.5, 0.5, 0.5])
    >>> successive_draws(torch.tensor([0.5, 0.1, 0.4]), torch.tensor(2.0), u)
    tensor([ True, False,  True])
    """
    waits = -torch.log1p(-uniform.double()) / p.double().clamp(min=1e-12)
    return ranks(waits) < k


def inclusion_probabilities(
    p: Float[Tensor, "*draws n"], k: Float[Tensor, ""]
) -> Float[Tensor, "*draws n"]:
    """pi ∝ p with sum k and pi <= 1: units that would exceed one are certain, the others share.

    >>> inclusion_probabilities(torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.tensor(2.0)).float()
    tensor([1.0000, 0.3333, 0.3333, 0.3333])
    """
    ordered, order = p.double().sort(dim=-1, descending=True, stable=True)
    rest = ordered.flip(-1).cumsum(-1).flip(-1)
    place = torch.arange(p.shape[-1], device=p.device)
    certain = ((k - place) * ordered >= rest).long().cumprod(-1)
    many = certain.sum(-1, keepdim=True)
    total = (ordered * (1 - certain)).sum(-1, keepdim=True).clamp(min=1e-300)
    shares = torch.where(certain > 0, 1.0, ((k - many) * ordered / total).clamp(max=1))
    return torch.zeros_like(shares).scatter(-1, order, shares)


def systematic_draws(
    pi: Float[Tensor, "*draws n"],
    start: Float[Tensor, "*draws"],
    uniform: Float[Tensor, "*draws n"],
) -> Bool[Tensor, "*draws n"]:
    """Each unit with its own probability pi_j, sum(pi) of them in every draw.

    The units in random order lie on a line, each as long as its pi; those are taken that hold one
    of the points `start`, `start + 1`, ….

    >>> half = torch.full((4,), 0.5)
    >>> systematic_draws(half, torch.tensor(0.3), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    tensor([ True, False,  True, False])
    """
    order = uniform.argsort(dim=-1, stable=True)
    ends = pi.double().gather(-1, order).cumsum(-1)
    points = torch.ceil(ends - start.double().unsqueeze(-1))
    taken = points.diff(dim=-1, prepend=torch.zeros_like(points[..., :1])) > 0
    return torch.zeros_like(taken).scatter(-1, order, taken)


def stratified(labels: Int[Tensor, " batch"], count: int) -> Int[Tensor, " drawn"]:
    """At most `count` positions, drawn with a fixed seed in proportion to the classes.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> labels[stratified(labels, 3)]
    tensor([0, 0, 1])
    """
    if len(labels) <= count:
        return torch.arange(len(labels), device=labels.device)
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = mixed[labels.cpu()[mixed].argsort(stable=True)]
    steps = torch.arange(count) * len(labels) // count
    return by_class[steps].to(labels.device)


def update_ratios(
    rho: Float[Tensor, " modalities"], tau: float, bounds: tuple[float, float] = (0.1, 0.9)
) -> Float[Tensor, " modalities"]:
    """q_m = clamp(1 - softmax_m(rho / tau)): the more significant, the fewer units learn.

    Where a rho is not positive, or not a number, every q is one half.

    Source: Adaptively Masking Subnetworks (TPAMI 2025).

    >>> update_ratios(torch.tensor([0.811303, 0.454943]), tau=0.2)
    tensor([0.1441, 0.8559])
    """
    q = 1 - torch.softmax(rho / tau, 0)
    sound = (rho > 0).all() & q.isfinite().all()
    return torch.where(sound, q, 0.5).clamp(*bounds)
