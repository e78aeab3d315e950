"""Means: of what modalities say, as weights or certainty have it; of the rows of an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.distributed import summed
from equivox.functional.prototypes import entropy
from equivox.fusion import sum_of
from equivox.task import MultiLabel

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.task import Task


def weighted_mean(
    said: Mapping[str, Float[Tensor, "*shape"]], weights: Mapping[str, float]
) -> Float[Tensor, "*shape"]:
    """sum_m w_m z_m / sum_m w_m over the modalities that are there, whoever else has a weight.

    >>> z = {"audio": torch.tensor(1.0), "video": torch.tensor(3.0)}
    >>> weighted_mean(z, {"audio": 1.0, "text": 9.0, "video": 3.0})
    tensor(2.5000)
    """
    total = sum(weights[m] for m in said)
    return sum_of(weights[m] / total * z for m, z in said.items())


def entropy_weights(
    logits: Mapping[str, Float[Tensor, "batch outputs"]], task: Task, over_batch: bool = False
) -> dict[str, Tensor]:
    """lambda_m, the softmax over modalities of minus the entropy of what each one says.

    The entropy is that of the classes, for multi-label tasks the mean binary one of the labels.

    :param over_batch: One weight a modality, from softmaxes over the *batch*, whose entropies are
        summed over the classes: the released code of MLA.

    Source: MLA (CVPR 2024).

    >>> from equivox import Classification
    >>> z = {"a": torch.tensor([[2.0, 0.0]]), "v": torch.tensor([[0.0, 0.0]])}
    >>> entropy_weights(z, Classification())
    {'a': tensor([[0.5812]]), 'v': tensor([[0.4188]])}
    """

    def uncertainty(z: Tensor) -> Tensor:
        if over_batch:
            return entropy(z.T).sum().view(1, 1)
        if isinstance(task, MultiLabel):
            return entropy(torch.stack([z, torch.zeros_like(z)], -1)).mean(-1, keepdim=True)
        return entropy(z).unsqueeze(-1)

    weights = torch.stack([-uncertainty(z) for z in logits.values()]).softmax(0)
    return dict(zip(logits, weights, strict=True))


def row_totals(parts: Sequence[Float[Tensor, " _ *shape"]]) -> tuple[Tensor, Tensor]:
    """The sum over the rows of all parts and ranks, and how many they are: add up, then divide.

    >>> row_totals([torch.tensor([1.0, 2.0]), torch.tensor([6.0])])
    (tensor(9.), tensor(3.))
    """
    total = sum_of(part.sum(0) for part in parts)
    total, count = summed([total, total.new_full((), sum(map(len, parts)))])
    return total, count
