"""How often samples are drawn with one modality alone, by what it contributes to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.functional.discrepancy import mean_of_others
from equivox.functional.shapley import shapley_values

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def valuation(
    correct: Mapping[frozenset[str], Float[Tensor, " batch"]], modalities: Sequence[str]
) -> dict[str, Float[Tensor, " batch"]]:
    """phi_m of every sample, the Shapley value of v(S) = |S| times whether S alone is right.

    :param correct: 1 where the prediction from this subset is right, 0 where wrong, or between.

    >>> right, wrong = torch.ones(1), torch.zeros(1)
    >>> correct = {frozenset("a"): right, frozenset("v"): wrong, frozenset("av"): right}
    >>> valuation(correct, ["a", "v"])
    {'a': tensor([1.5000]), 'v': tensor([0.5000])}
    """
    return shapley_values({s: len(s) * right for s, right in correct.items()}, modalities)


def copies_of(phi: Float[Tensor, "*shape"], rule: str = "table") -> Int[Tensor, "*shape"]:
    """How many copies of a sample keep only the modality of contribution phi: none for phi >= 1.

    "table": one below 1, two below 0.4, three below -0.1. "linear": min(3, floor(2.5 - 2 phi)),
    the same for two modalities.

    >>> copies_of(torch.tensor([1.5, 1.0, 0.5, 0.0, -0.5]))
    tensor([0, 0, 1, 2, 3], dtype=torch.int8)
    """
    low = phi < 1 - 1e-6  # multiples of 1 / M! are rounded
    if rule == "linear":
        count = (2.5 - 2 * phi + 1e-6).floor().clamp(0, 3) * low
    else:
        count = low.int() + (phi < 0.4).int() + (phi < -0.1).int()
    return count.to(torch.int8)


def resampling_share(
    contributions: Mapping[str, float], alpha: float = 1.0, gain: str = "linear"
) -> tuple[str, float]:
    """The modality that contributes least, and the share p of samples to copy for it.

    With g = 2/3 (largest gap - mean of the other gaps), gap_m = 1 - mean phi_m: p = alpha g,
    tanh(alpha g) or alpha g^1.5. With two modalities that is the paper's |gap_1 - gap_2|.

    >>> resampling_share({"a": 0.9, "v": 0.4})
    ('v', 0.333...)
    """
    gaps = {m: torch.tensor(1 - phi, dtype=torch.float64) for m, phi in contributions.items()}
    target = max(gaps, key=lambda m: float(gaps[m]))
    g = 2 / 3 * max(float(gaps[target] - mean_of_others(gaps)[target]), 0.0)
    shares = {"linear": alpha * g, "tanh": math.tanh(alpha * g), "square": alpha * g**1.5}
    return target, shares[gain]


def extended(
    counts: Int[Tensor, "samples modalities"],
) -> tuple[Int[Tensor, " rows"], Bool[Tensor, "rows modalities"]]:
    """The samples, each once and whole, then their copies, and which modalities every row keeps.

    >>> extended(torch.tensor([[0, 1], [0, 0]]))
    (tensor([0, 1, 0]), tensor([[ True,  True],
            [ True,  True],
            [False,  True]]))
    """
    samples, modalities = counts.shape
    every = torch.arange(samples)
    copies = [every.repeat_interleave(column.long()) for column in counts.unbind(1)]
    alone = torch.eye(modalities, dtype=torch.bool)
    whole = torch.ones(samples, modalities, dtype=torch.bool)
    keep = [row.expand(len(part), -1) for row, part in zip(alone, copies, strict=True)]
    return torch.cat([every, *copies]), torch.cat([whole, *keep])
