"""What is measured of a trained model: its answers, each modality's share, what encoders hold.

The *metric* of a task is R2 for regression and the mean of `task.correct` otherwise (accuracy for
classification); larger is better. Everything here runs in eval mode, without gradients, and leaves
the random state as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.metric import value
from equivox.features import vector
from equivox.functional import imbalance, linear_probe, logistic_probe, shapley_values, subsets
from equivox.model import Output
from equivox.task import Classification, Dense, MultiLabel

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.method import Batch
    from equivox.task import Task

MOST_MODALITIES = 10
"""Exact contributions take 2^M passes through the fusion."""


@dataclass(frozen=True)
class Measurement:
    """What `measure` found, on test data.

    Attributes: `metric` of the method's own prediction; by modality, `branch` (the metric of its
    share of the fused logits), `probe` (of a closed-form linear model of its features) and
    `contribution` (its Shapley value); `imbalance`, the mean of |phi_i - phi_j| over all pairs.
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
    phi = contributions(balancer, test)
    return Measurement(
        metric(balancer, test),
        branches(balancer, test),
        probes(balancer, train, test),
        phi,
        float(imbalance({m: torch.tensor(x) for m, x in phi.items()}).absolute),
    )


def metric(balancer: Balancer, loader: Iterable[Any]) -> float:
    """The metric of the method's own prediction."""
    rows = balancer.collect(
        loader, lambda o, b: {"logits": balancer.method.predict(o), "target": b.target}
    )
    return value(balancer.task, rows["logits"], rows["target"])


def branches(balancer: Balancer, loader: Iterable[Any]) -> dict[str, float]:
    """The metric of each modality's share of the fused logits.

    The share understates an encoder: a concatenation may leave it near chance while the features
    are still good, which `probes` shows.
    """
    rows = balancer.collect(loader, lambda o, b: {"shares": o.split, "target": b.target})
    return {m: value(balancer.task, x, rows["target"]) for m, x in rows["shares"].items()}


def unimodal(balancer: Balancer, loader: Iterable[Any]) -> dict[str, float]:
    """The metric of each modality's own head; of its share where there are no heads."""
    rows = balancer.collect(loader, lambda o, b: {"said": o.unimodal, "target": b.target})
    return {m: value(balancer.task, x, rows["target"]) for m, x in rows["said"].items()}


def probes(
    balancer: Balancer, train: Iterable[Any], test: Iterable[Any], logistic: bool = False
) -> dict[str, float]:
    """The metric of a linear model of each encoder's features, fitted on the training data.

    :param logistic: For classification, logistic regression, which is slower and steadier from
        seed to seed. Otherwise ridge regression in closed form, of one-hot rows for classes and
        labels.
    :raises ValueError: For dense prediction, whose features have no single vector a sample.
    """
    if isinstance(balancer.task, Dense):
        raise ValueError(
            "A probe reads one vector a sample. Found `Dense`, which answers at every position. "
            "Measure `metric`, `branches` and `contributions` instead."
        )
    fit, held = _features(balancer, train), _features(balancer, test)
    return {
        m: _probed(balancer.task, z, fit["target"], held["features"][m], held["target"], logistic)
        for m, z in fit["features"].items()
    }


def contributions(balancer: Balancer, loader: Iterable[Any]) -> dict[str, float]:
    """The exact Shapley value of each modality for the metric of the method's prediction.

    v(S) is the metric with the features of all modalities outside S blanked as the model blanks
    them (zeros, unless it says otherwise). Encoders run once. The values add up to
    v(all) - v(none); none is not zero, but mostly the share of one class.

    :raises ValueError: For more than ten modalities.
    """
    modalities = balancer.model.modalities
    if len(modalities) > MOST_MODALITIES:
        raise ValueError(
            f"Exact contributions take at most {MOST_MODALITIES} modalities. Found "
            f"{len(modalities)}. Sample them: `functional.sampled_shapley_values`."
        )
    every = subsets(modalities)
    rows = balancer.collect(loader, lambda o, b: _answers(balancer, o, b, every))
    known = {
        s: torch.tensor(value(balancer.task, rows[_name(s)], rows["target"]), dtype=torch.double)
        for s in every
    }
    return {m: float(phi) for m, phi in shapley_values(known, modalities).items()}


def _answers(
    balancer: Balancer, output: Output, batch: Batch, every: Iterable[frozenset[str]]
) -> Mapping[str, Any]:
    """The method's prediction for every subset of the modalities."""
    model = balancer.model
    found = {"target": batch.target}
    for subset in every:
        seen = Output(model, model.blanked(output.features, subset))
        seen.logits, seen.extra = model.fused(seen.features)
        found[_name(subset)] = balancer.method.predict(seen)
    return found


def _name(subset: frozenset[str]) -> str:
    return "keep " + " ".join(sorted(subset))


def _features(balancer: Balancer, loader: Iterable[Any]) -> Any:
    def what(output: Output, batch: Batch) -> Mapping[str, Any]:
        return {
            "features": {m: vector(z) for m, z in output.features.items()},
            "target": batch.target,
        }

    return balancer.collect(loader, what)


def _probed(
    task: Task, fit: Tensor, fit_target: Any, held: Tensor, held_target: Any, logistic: bool
) -> float:
    if isinstance(task, Classification):
        classes = task.classes or int(fit_target.max()) + 1
        probe = logistic_probe if logistic else linear_probe
        return value(task, probe(fit, fit_target, held, classes), held_target)
    if isinstance(task, MultiLabel):  # a label is said above 0, and regressed as 0 or 1
        return value(task, linear_probe(fit, fit_target.double(), held) - 0.5, held_target)
    return value(task, linear_probe(fit, fit_target, held), held_target)
