"""How far one modality is ahead of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def mean_of_others(scores: Mapping[str, Float[Tensor, "*shape"]]) -> dict[str, Tensor]:
    """For each modality the mean score of all the others; a single modality gets its own.

    >>> mean_of_others({"audio": torch.tensor(1.0), "video": torch.tensor(3.0)})
    {'audio': tensor(3.), 'video': tensor(1.)}
    """
    return {name: torch.stack([*_others(scores, name)]).mean(0) for name in scores}


def ratio_to_others(
    scores: Mapping[str, Float[Tensor, "*shape"]], eps: float = 1e-8
) -> dict[str, Tensor]:
    """rho_m, the mean over the others j of S_m / (S_j + eps): above one where m is ahead.

    The modality with the lowest score never exceeds one, and equal scores give at most one, in
    floating point too. A single modality is compared with itself.

    :param scores: S_m >= 0, a sum or mean over samples, already reduced over ranks.
    :param eps: Keeps the ratio finite where another modality's score is zero.

    Source: On-the-fly Modulation for Balanced Multimodal Learning (TPAMI 2024); for two modalities
    the ratio of OGM-GE (CVPR 2022).

    >>> ratio_to_others({"audio": torch.tensor(3.0), "video": torch.tensor(2.0)})
    {'audio': tensor(1.5000), 'video': tensor(0.6667)}
    """
    # Divide one by one: S_m times a mean of reciprocals may round to above one at a tie.
    return {
        name: torch.stack([score / (other + eps) for other in _others(scores, name)]).mean(0)
        for name, score in scores.items()
    }


def _others(scores: Mapping[str, Tensor], name: str) -> Iterator[Tensor]:
    yield from [score for other, score in scores.items() if other != name] or [scores[name]]
