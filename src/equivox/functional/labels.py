"""The targets of any task as class numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.task import Classification, Dense, MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from equivox.task import Task


def quantile_edges(target: Tensor, bins: int) -> Float[Tensor, "columns edges"]:
    """The values between `bins` equally frequent bins of every output, one edge less than bins.

    >>> quantile_edges(torch.arange(5.0), bins=4)
    tensor([[1., 2., 3.]])
    """
    levels = torch.arange(1, bins, device=target.device) / bins
    return torch.quantile(target.float().reshape(len(target), -1), levels, dim=0).T


def binned(target: Tensor, edges: Float[Tensor, "columns edges"]) -> Int[Tensor, "batch columns"]:
    """The number of the bin that each output falls into.

    >>> binned(torch.tensor([0.5, 2.5]), torch.tensor([[1.0, 2.0]]))
    tensor([[0],
            [2]])
    """
    return (target.reshape(len(target), -1, 1) > edges).sum(-1)


def asked(task: Task, outputs: int, bins: int) -> tuple[int, int]:
    """How many questions are asked of a sample, and how many classes answer each; see `answers`.

    >>> asked(MultiLabel(), outputs=5, bins=8)
    (5, 2)
    """
    if isinstance(task, Classification):
        return 1, outputs
    return outputs, 2 if isinstance(task, MultiLabel) else bins


def answers(
    task: Task, target: Tensor, edges: Float[Tensor, "columns edges"]
) -> Int[Tensor, "batch questions"]:
    """The classes of each sample: its class, "no" and "yes" of every label, or bins of outputs.

    :param edges: Of the bins of a regression target, see `quantile_edges`; no other task has any.

    >>> answers(MultiLabel(), torch.tensor([[0.0, 1.0]]), torch.empty(2, 1))
    tensor([[0, 1]])
    """
    if isinstance(task, Classification):
        return class_numbers(target)[:, None]
    return (target > 0.5).long() if isinstance(task, MultiLabel) else binned(target, edges)


def single_classes(
    task: Task,
    target: Tensor,
    train: Tensor,
    bins: int = 10,
) -> Int[Tensor, " batch"]:
    """One class a sample, whatever the task.

    Classes are themselves; a regression target is its quantile bin (of the mean over outputs), and
    a multi-label one its label that is most frequent in training, or a class of its own if none.
    Dense targets come as their `most_frequent_class`.

    :param train: The training targets, from which quantiles and frequencies are taken.

    >>> y = torch.arange(4.0)
    >>> single_classes(Regression(), y, y, bins=2)
    tensor([0, 0, 1, 1])
    """
    if isinstance(task, Regression):
        y, known = (t.float().view(len(t), -1).mean(1) for t in (target, train))
        return binned(y, quantile_edges(known, bins))[:, 0]
    if isinstance(task, MultiLabel):
        said = target > 0.5
        dominant = (said * (1 + train.float().sum(0))).argmax(1)
        return torch.where(said.any(1), dominant, target.shape[1])
    return class_numbers(target)


def class_counts(task: Task, target: Tensor, outputs: int) -> Float[Tensor, " outputs"]:
    """How often each class, or label, occurs in the targets; in float64.

    Distributions count by their shares, and of dense targets the positions that are not ignored.

    >>> class_counts(Classification(), torch.tensor([0, 2, 2]), outputs=4).tolist()
    [1.0, 0.0, 2.0, 0.0]
    """
    if isinstance(task, MultiLabel):
        return (target > 0.5).double().sum(0)
    if isinstance(task, Classification) and target.ndim > 1:
        return target.double().sum(0)
    counted = target[target != task.ignore_index] if isinstance(task, Dense) else target
    return counted.flatten().long().bincount(minlength=outputs).double()


def most_frequent_class(
    target: Int[Tensor, " batch *space"], classes: int
) -> Int[Tensor, " batch"]:
    """The class of most positions of a dense target; numbers beyond the classes do not count.

    >>> most_frequent_class(torch.tensor([[0, 1, 1, 255, 255, 255]]), classes=2)
    tensor([1])
    """
    counts = [(target == c).flatten(1).sum(1) for c in range(classes)]
    return torch.stack(counts, 1).argmax(1)


def class_numbers(target: Tensor) -> Int[Tensor, " batch"]:
    """Classes by number; of targets that are distributions, the likeliest.

    >>> class_numbers(torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    tensor([1, 0])
    """
    return target.long() if target.ndim == 1 else target.argmax(-1)
