"""Two opinions of a sample: which one knows it better, and what the other may learn from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from equivox.functional.outcomes import log_probabilities, of_truth, valid_decisions
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Shaped

    from equivox.task import Task


class Opinion(NamedTuple):
    """What is said of every sample: its decisions are classes, labels, positions or numbers."""

    truth: Tensor
    """t: the probability of the true outcome, (batch, *decisions)."""
    right: Tensor
    """Whether the likeliest outcome is the true one, (batch, *decisions)."""
    log_p: Tensor | None
    """Log-probabilities at a temperature, (batch, outcomes, *decisions); None for regression."""
    representation: Tensor
    """r, (batch, dimensions, *decisions): what one may be drawn to."""


def opinion_of(
    logits: Float[Tensor, " batch *outputs"],
    target: Shaped[Tensor, " batch *decisions"],
    task: Task,
    temperature: float = 1.0,
    probabilities: bool = False,
) -> Opinion:
    """The opinion that logits express; r is the logits, or the probabilities.

    Regression has t = exp(-|error|), counts as right and has no log-probabilities.

    :param temperature: Of `log_p` alone.

    >>> from equivox import Classification
    >>> opinion_of(torch.zeros(1, 4), torch.tensor([0]), Classification()).truth
    tensor([0.2500])
    """
    if isinstance(task, Regression):
        said = logits.reshape(target.shape)
        truth = torch.exp(-(said - target).abs())
        return Opinion(truth, torch.ones_like(truth, dtype=torch.bool), None, said.unsqueeze(1))
    independent = isinstance(task, MultiLabel)
    log_p = log_probabilities(logits, independent)
    soft = not independent and target.is_floating_point() and target.ndim == logits.ndim
    labels = target.argmax(1) if soft else target.long()
    truth = of_truth(log_p, labels, valid_decisions(task, target)).exp()
    r = logits.unsqueeze(1) if independent else logits
    if probabilities:
        r = log_p[:, 1:].exp() if independent else log_p.exp()
    heated = log_probabilities(logits / temperature, independent)
    return Opinion(truth, log_p.argmax(1) == labels, heated, r)


def taught(
    first: Float[Tensor, "batch dimensions *decisions"],
    second: Float[Tensor, "batch dimensions *decisions"],
    by_first: Bool[Tensor, " batch *decisions"],
    detach: bool = True,
) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's rows of two, where `by_first` says who teaches.

    The teacher's are constants unless `detach` is False.

    >>> taught(torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([True, False]))[0]
    tensor([[1.],
            [0.]])
    """
    chosen = by_first.unsqueeze(1)
    teacher, student = torch.where(chosen, first, second), torch.where(chosen, second, first)
    return (teacher.detach() if detach else teacher), student


def distillation_weight(
    first: Opinion, second: Opinion, detach: bool = True
) -> Float[Tensor, " batch *decisions"]:
    """omega = |t_a - t_b| where at least one of the two is right, else zero.

    A constant unless `detach` is False.
    """
    weight = (first.truth - second.truth).abs() * (first.right | second.right)
    return weight.detach() if detach else weight
