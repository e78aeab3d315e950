"""How well clusters agree with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def purity(labels: Int[Tensor, " batch"], clusters: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """The share of samples that carry the most frequent label of their cluster.

    P = 1/N sum over clusters k of max over labels c of |cluster k with label c|. Labels and
    clusters are numbered from zero, in any order.

    :raises ValueError: If there is no sample.

    >>> labels, clusters = [0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 1, 1, 1, 1, 2, 0]
    >>> purity(torch.tensor(labels), torch.tensor(clusters))
    tensor(0.7500)
    """
    if len(labels) == 0:
        raise ValueError("Purity needs at least one sample. Found none.")
    classes, groups = int(labels.max()) + 1, int(clusters.max()) + 1
    table = torch.bincount(clusters * classes + labels, minlength=groups * classes)
    return table.view(groups, classes).amax(1).sum() / len(labels)
