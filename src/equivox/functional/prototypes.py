"""Class prototypes: mean features, and the classifier that measures the distance to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.functional.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def class_means(
    features: Float[Tensor, "batch features"], target: Int[Tensor, " batch"], classes: int
) -> tuple[Float[Tensor, "classes features"], Float[Tensor, " classes"]]:
    """The two parts of the class means: feature sums and sample counts, which add up over batches
    and ranks before they are divided.

    >>> class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), classes=3)
    (tensor([[4.],
            [0.],
            [5.]]), tensor([2., 0., 1.]))
    """
    rows = at_least_float32(features)
    sums = rows.new_zeros(classes, rows.shape[1]).index_add(0, target, rows)
    counts = rows.new_zeros(classes).index_add(0, target, rows.new_ones(len(rows)))
    return sums, counts


def prototype_logits(
    features: Float[Tensor, "batch features"],
    prototypes: Float[Tensor, "classes features"],
    seen: Bool[Tensor, " classes"] | None = None,
) -> Float[Tensor, "batch classes"]:
    """The negative Euclidean distance of every sample to every prototype, in float32.

    Their softmax is the non-parametric classifier of Prototypical Modal Rebalance. Distances come
    from differences, not from the expansion |z|^2 - 2 <z, c> + |c|^2, which loses close points to
    rounding; at distance zero the gradient is zero.

    :param seen: Which classes have a prototype. The others get the logit -inf, and their rows of
        `prototypes` may hold anything, NaN included. The cross-entropy of a sample whose own class
        is unseen is infinite: leave such samples out.

    Source: PMR: Prototypical Modal Rebalance for Multimodal Learning (CVPR 2023).

    >>> prototype_logits(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[-5., -0.]])
    """
    rows, centres = at_least_float32(features), at_least_float32(prototypes)
    if seen is not None:
        centres = centres.masked_fill(~seen[:, None], 0.0)
    logits = -torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist")
    return logits if seen is None else logits.masked_fill(~seen, -torch.inf)


def entropy(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """The entropy, in nats, of the softmax over the last axis; a logit of -inf counts as absent.

    >>> entropy(torch.tensor([0.0, 0.0, -torch.inf]))
    tensor(0.6931)
    """
    log_p = torch.log_softmax(at_least_float32(logits), dim=-1)
    p = log_p.exp()
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)  # 0 log 0 = 0, in the gradient too


def moved_prototypes(
    old: Float[Tensor, "classes features"],
    new: Float[Tensor, "classes features"],
    seen: Bool[Tensor, " classes"],
    found: Bool[Tensor, " classes"],
    momentum: float,
) -> Float[Tensor, "classes features"]:
    """momentum old + (1 - momentum) new; the first ones are `new`, classes not found keep theirs.

    >>> one, yes = torch.ones(1, 1), torch.tensor([True])
    >>> moved_prototypes(one, 2 * one, seen=yes, found=yes, momentum=0.2)
    tensor([[1.8000]])
    """
    mixed = torch.where(seen[:, None], momentum * old + (1 - momentum) * new, new)
    return torch.where(found[:, None], mixed, old)


def prototype_loss(
    logits: Float[Tensor, "batch questions classes"],
    labels: Int[Tensor, "batch questions"],
    known: Bool[Tensor, "batch questions"],
) -> Float[Tensor, " batch"]:
    """The cross-entropy of each sample, averaged over the questions whose answer is known.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, -torch.inf]]])
    >>> prototype_loss(logits, torch.tensor([[1, 1]]), torch.tensor([[True, False]]))
    tensor([0.6931])
    """
    asked = labels.masked_fill(~known, -100)
    errors = F.cross_entropy(logits.mT, asked, reduction="none", ignore_index=-100)
    return errors.sum(1) / known.sum(1).clamp(min=1)
