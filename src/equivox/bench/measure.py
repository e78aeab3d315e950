"""What is measured of a trained model: its answers, each modality's share, what encoders hold.

The *metric* of a task is R2 for regression and the mean of `task.correct` otherwise (accuracy for
classification); larger is better. Everything here runs in eval mode, without gradients, and leaves
the random state as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.diagnosis.answers import gather
from equivox.diagnosis.contribution import sample_contributions
from equivox.diagnosis.metric import value
from equivox.diagnosis.probes import Split, encoded, probe
from equivox.functional import imbalance

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.task import Task

__all__ = [
    "Measurement",
    "contributions",
    "measure",
    "metric",
    "probes",
    "unimodal",
]


@dataclass(frozen=True)
class Measurement:
    """What `measure` found, on test data.

    Attributes: `metric` of the method's own prediction; by modality, `branch` (the metric of its
    share of the fused logits), `probe` (of a closed-form linear model of its features) and
    `contribution` (its Shapley value); `imbalance`, the mean of |phi_i - phi_j| over all pairs.

    The share understates an encoder: a concatenation may leave it near chance while the features
    are still good, which `probe` shows.
    """

    metric: float
    branch: dict[str, float]
    probe: dict[str, float]
    contribution: dict[str, float]
    imbalance: float


def measure(balancer: Balancer, train: Iterable[Any], test: Iterable[Any]) -> Measurement:
    """Everything about a trained model; see `Measurement`.

    :param train: A loader of the training data, which probes are fitted on.
    :param test: A loader of the data to measure on.
    """
    answers = gather(balancer, test, blankings=("zero",))
    held = {m: Split(z, answers.target) for m, z in answers.features.items()}
    phi = {m: rows.mean() for m, rows in sample_contributions(answers).items()}
    return Measurement(
        value(answers.task, answers.whole, answers.target),
        _metrics(answers.task, answers.shares, answers.target),
        _probed(answers.task, encoded(balancer, train), held),
        {m: float(x) for m, x in phi.items()},
        float(imbalance(phi).absolute),
    )


def metric(balancer: Balancer, loader: Iterable[Any]) -> float:
    """The metric of the method's own prediction."""
    rows = balancer.collect(
        loader, lambda o, b: {"logits": balancer.method.predict(o), "target": b.target}
    )
    return value(balancer.task, rows["logits"], rows["target"])


def unimodal(balancer: Balancer, loader: Iterable[Any]) -> dict[str, float]:
    """The metric of each modality's own head; of its share where there are no heads."""
    rows = balancer.collect(loader, lambda o, b: {"said": o.unimodal, "target": b.target})
    return _metrics(balancer.task, rows["said"], rows["target"])


def _metrics(task: Task, logits: Mapping[str, Tensor], target: Any) -> dict[str, float]:
    return {m: value(task, z, target) for m, z in logits.items()}


def probes(
    balancer: Balancer, train: Iterable[Any], test: Iterable[Any], logistic: bool = False
) -> dict[str, float]:
    """The metric of a linear model of each encoder's features, fitted on the training data.

    :param logistic: For classification, logistic regression, which is slower and steadier from
        seed to seed. Otherwise ridge regression in closed form, of one-hot rows for classes and
        labels.
    :raises ValueError: For dense prediction, whose features have no single vector a sample.
    """
    fit, held = encoded(balancer, train), encoded(balancer, test)
    return _probed(balancer.task, fit, held, logistic)


def _probed(
    task: Task, fit: Mapping[str, Split], held: Mapping[str, Split], logistic: bool = False
) -> dict[str, float]:
    return {m: float(probe(task, fit[m], held[m], logistic).mean()) for m in fit}


def contributions(balancer: Balancer, loader: Iterable[Any]) -> dict[str, float]:
    """The Shapley value of each modality for the metric of the method's prediction.

    v(S) is the metric with zeros for the features of all modalities outside S. Encoders run once.
    The values add up to v(all) - v(none); none is not zero, but mostly the share of one class.

    Exact for up to eight modalities, and sampled for more, see `diagnosis.contribution`.

    :raises ValueError: For what `diagnosis.gather` refuses.
    """
    rows = sample_contributions(gather(balancer, loader, blankings=("zero",)))
    return {m: float(x.mean()) for m, x in rows.items()}
