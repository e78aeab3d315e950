"""Turning one weight towards several others: a loss of weighted cosines, and its slopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivox.functional.gradients import flat_cosine
from equivox.fusion import sum_of

if TYPE_CHECKING:
    from jaxtyping import Float


def alignment_loss(
    balance: Mapping[str, Float[Tensor, ""]], cosines: Mapping[str, Float[Tensor, ""]]
) -> Float[Tensor, ""]:
    """L = (sum_m |B_m| - sum_m B_m c_m) / M: zero where every c_m is one and no B_m negative.

    Source: Classifier-guided Gradient Modulation (NeurIPS 2024).

    >>> B = {"audio": torch.tensor(0.75), "video": torch.tensor(0.25)}
    >>> alignment_loss(B, {"audio": torch.tensor(1.0), "video": torch.tensor(0.0)})
    tensor(0.1250)
    """
    return sum_of(b.abs() - b * cosines[m] for m, b in balance.items()) / len(balance)


def alignment_pull(
    balance: Mapping[str, Float[Tensor, ""]],
    targets: Mapping[str, Float[Tensor, "outputs width"]],
    parts: Sequence[Float[Tensor, "outputs _"]],
    lam: float,
) -> list[Tensor]:
    """lam dL / d parts, with c_m the cosine of target m and the parts, joined by columns.

    >>> toward = {"audio": torch.tensor([[1.0, 1.0]])}
    >>> alignment_pull({"audio": torch.tensor(1.0)}, toward, [torch.tensor([[1.0, 0.0]])], lam=1.0)
    [tensor([[ 0.0000, -0.7071]])]
    """
    free = [part.detach().requires_grad_() for part in parts]
    with torch.enable_grad():
        cosines = {m: flat_cosine([targets[m].detach()], [torch.cat(free, 1)]) for m in balance}
        return list(torch.autograd.grad(lam * alignment_loss(balance, cosines), free))


def cosine_slopes(
    joint: Float[Tensor, ""],
    layers: Sequence[nn.Linear],
    own: Mapping[str, Float[Tensor, ""]],
    weights: Mapping[str, Tensor],
) -> dict[str, Float[Tensor, " parameters"]]:
    """d c_m / d (the layers' parameters), each as one long vector, by a double backward.

    c_m is the cosine of the gradients of two losses: the joint one, of the layers' weights joined
    by columns, and `own[m]`, of `weights[m]`, a constant. All graphs are kept.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> joint, w = layer.weight.square().sum(), torch.ones(1, 2, requires_grad=True)
    >>> cosine_slopes(joint, [layer], {"audio": w.sum()}, {"audio": w})["audio"].shape
    torch.Size([2])
    """
    parameters = [p for layer in layers for p in layer.parameters()]
    ours = torch.autograd.grad(joint, [layer.weight for layer in layers], create_graph=True)
    joined = torch.cat(ours, 1)
    slopes = {}
    for m, loss in own.items():
        (theirs,) = torch.autograd.grad(loss, [weights[m]], retain_graph=True)
        found = torch.autograd.grad(
            flat_cosine([theirs], [joined]),
            parameters,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        slopes[m] = torch.cat([slope.flatten() for slope in found])
    return slopes
