"""Sizes of outputs, and how far they are from the sizes that they should have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.fusion import sum_of

if TYPE_CHECKING:
    from jaxtyping import Float


def sample_norms(logits: Float[Tensor, "batch classes *space"]) -> Float[Tensor, " batch"]:
    """|z| over the classes, averaged over the positions of a dense prediction; detached.

    >>> sample_norms(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([5., 1.])
    """
    norms = torch.linalg.vector_norm(logits.detach().float(), dim=1)
    return norms.flatten(1).mean(1) if norms.ndim > 1 else norms


def norm_distance(
    scales: Mapping[str, Float[Tensor, ""]],
    norms: Mapping[str, Float[Tensor, " batch"]],
    ratios: Mapping[str, Float[Tensor, ""]],
) -> Float[Tensor, " batch"]:
    """sum_k |N_ik - T_ik| with N_ik = w_k |z_k^i| and T_ik = r_k mean_k(N_ik), a constant.

    The gradient flows into the scales w_k alone.

    Source: Online Logit Modulation (IJCAI 2024).

    >>> one, half = torch.tensor(1.0), torch.tensor(0.5)
    >>> norms = {"a": torch.tensor([1.0]), "b": torch.tensor([3.0])}
    >>> norm_distance({"a": one, "b": one}, norms, {"a": half, "b": half})
    tensor([2.])
    """
    scaled = {k: scales[k] * norm.detach() for k, norm in norms.items()}
    mean = (sum_of(scaled.values()) / len(scaled)).detach()
    return sum_of((n - ratios[k].detach() * mean).abs() for k, n in scaled.items())
