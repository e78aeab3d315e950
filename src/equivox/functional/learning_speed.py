"""How fast parts of a network learn, and how much a branch lives on what the others tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivox.functional.gradients import flat_norm

if TYPE_CHECKING:
    from jaxtyping import Float


def learning_speed(parameters: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """mu(P) = sum |gradient|² / sum |parameter|² over a set; no gradient counts as zero.

    >>> weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> weight.grad = torch.tensor([2.0, 0.0])
    >>> learning_speed([weight])
    tensor(0.8000)
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    size = flat_norm([p.detach() for p in parameters]).square()
    moved = flat_norm(gradients).square() if gradients else torch.zeros_like(size)
    return torch.where(size > 0, moved / size.where(size > 0, 1), 0)


def conditional_speeds(
    bypass: Float[Tensor, " modalities"], main: Float[Tensor, " modalities"]
) -> Float[Tensor, " modalities"]:
    """BDR_m = log10(A_bypass_m / A_main_m): how fast m learns from the others, to its own speed.

    >>> conditional_speeds(torch.tensor([0.02, 0.005]), torch.tensor([0.01, 0.01]))
    tensor([ 0.3010, -0.3010])
    """
    least = torch.finfo(main.dtype).tiny
    return bypass.clamp(min=least).log10() - main.clamp(min=least).log10()


def conditional_utilisation(
    full: Float[Tensor, "*shape"], without: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """u(m_1 | m_0) = (A(y_0) - A(y'_0)) / A(y_0): what branch 0 loses without modality 1's squeeze.

    :param full: A branch's accuracy.
    :param without: The same with what the other modalities tell the branch taken away.

    >>> conditional_utilisation(torch.tensor(0.8), torch.tensor(0.6))
    tensor(0.2500)
    """
    return torch.where(full > 0, (full - without) / full.where(full > 0, 1), 0)
