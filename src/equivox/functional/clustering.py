"""Clusters of features, and how well they agree with labels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

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


def cluster_purity(
    features: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"], clusters: int
) -> float:
    """The purity of the K-means clusters of features that are scaled to [-1, 1] by dimension.

    :raises ValueError: For fewer samples than clusters.
    :raises ImportError: Without scikit-learn.

    >>> z = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> cluster_purity(z, torch.tensor([0, 0, 1, 1]), clusters=2)
    1.0
    """
    if len(features) < clusters:
        raise ValueError(
            f"K-means needs a sample a cluster. Found {len(features)} samples for {clusters} "
            "clusters. Give more validation data."
        )
    low, high = features.amin(0), features.amax(0)
    scaled = 2 * (features - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny) - 1
    with warnings.catch_warnings():
        # Fewer distinct points than clusters is a fact about the features, which purity tells.
        warnings.filterwarnings("ignore", "Number of distinct clusters")
        found = k_means(clusters).fit_predict(scaled.cpu().numpy())
    return float(purity(labels.cpu(), torch.from_numpy(found).long()))


def k_means(clusters: int) -> Any:
    """Scikit-learn's K-means: the best of ten k-means++ starts, always the same ones.

    :raises ImportError: Without scikit-learn.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError(
            'K-means needs scikit-learn. Found none installed. Run `pip install "equivox[bench]"`.'
        ) from error
    return KMeans(clusters, init="k-means++", n_init=10, random_state=0)
