"""Recursive least squares: the matrix that protects the directions that were used before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def rls_update(
    p: Float[Tensor, "features features"],
    r: Float[Tensor, " features"],
    alpha: float | Float[Tensor, ""],
) -> Float[Tensor, "features features"]:
    """P - (P r)(P r)' / (alpha + r' P r): P loses the direction r, the more the smaller alpha.

    By Joseph's form, (I - k r') P (I - k r')' + alpha k k' with k = P r / (alpha + r' P r), which
    rounding does not drive below zero as it does the difference.

    >>> rls_update(torch.eye(2), torch.tensor([1.0, 0.0]), alpha=0.1)
    tensor([[0.0909, 0.0000],
            [0.0000, 1.0000]])
    """
    k = p @ r
    k = k / (alpha + r @ k)
    half = p - torch.outer(k, r @ p)
    return half - torch.outer(half @ r, k) + alpha * torch.outer(k, k)
