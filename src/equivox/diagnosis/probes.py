"""Probes: what an encoder has learned, whatever the fusion makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.diagnosis.metric import Estimate, Metric, merits, metric_of
from equivox.features import vector
from equivox.functional.labels import class_numbers
from equivox.functional.probe import linear_probe, logistic_probe
from equivox.task import Classification, Dense, MultiLabel, Task

if TYPE_CHECKING:
    from equivox.balancer import Balancer


@dataclass(frozen=True)
class Probe:
    """A linear model of one encoder's frozen features, against the encoder trained alone.

    Attributes: `joint`, the metric of the probe of the network's encoder; `alone`, that of the same
    encoder trained alone to its own convergence; `gap`, alone minus joint, paired by sample.
    """

    joint: Estimate
    alone: Estimate
    gap: Estimate

    def to_json(self) -> dict[str, Any]:
        """The probe in plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Split:
    """Features (samples, width) of one encoder and the targets of the same samples."""

    features: Tensor
    target: Any


def encoded(balancer: Balancer, loader: Iterable[Any]) -> dict[str, Split]:
    """The pooled features of each encoder, over a loader."""
    rows = balancer.collect(
        loader,
        lambda o, b: {
            "target": b.target,
            "features": {m: vector(z) for m, z in o.features.items()},
        },
    )
    return {m: Split(z, rows["target"]) for m, z in rows["features"].items()}


def read_linearly(task: Task, fit: Split, held: Split, logistic: bool = True) -> Tensor:
    """(samples, outputs) logits on `held` of a linear model fitted on `fit`.

    Logistic regression for classes; ridge regression, of labels as 0 and 1, otherwise.

    :param logistic: False for ridge regression of classes too, as one-hot rows: faster.
    :raises ValueError: For dense prediction, whose features have no single vector a sample.
    """
    if isinstance(task, Dense):
        raise ValueError(
            "A probe reads one vector a sample. Found `Dense`, which answers at every position."
        )
    if isinstance(task, Classification):
        labels = class_numbers(fit.target)
        classes = task.classes or int(labels.max()) + 1
        regress = logistic_probe if logistic else linear_probe
        return regress(fit.features, labels, held.features, classes)
    if isinstance(task, MultiLabel):
        share = linear_probe(fit.features, fit.target.double(), held.features)
        return 4 * (share - 0.5)  # the logit's tangent: it has no ends to fall off
    return linear_probe(fit.features, fit.target, held.features)


def probe(task: Task, fit: Split, held: Split, logistic: bool = True) -> Tensor:
    """(samples,) merits of what `read_linearly` says."""
    return merits(task, read_linearly(task, fit, held, logistic), held.target)


Read = Mapping[str, tuple[Tensor, Tensor]]
"""By modality, what is read from its encoder in the network, and from the one trained alone."""


def read_both(
    task: Task,
    joint: Mapping[str, tuple[Split, Split]],
    alone: Mapping[str, tuple[Split, Split]],
) -> Read:
    """What linear models read from each encoder in the network and trained alone.

    :param joint: By modality, the features of the training and of the test data in the network.
    :param alone: The same of the models trained alone; the same samples in the same order.
    """
    return {
        m: (read_linearly(task, *pair), read_linearly(task, *alone[m])) for m, pair in joint.items()
    }


def probes(task: Task, read: Read, target: Any, metric: Metric | None = None) -> dict[str, Probe]:
    """Each encoder's probe in the network and trained alone.

    :param read: See `read_both`.
    :param metric: By default the task's usual one.
    """
    metric, found = metric or metric_of(task), {}
    for modality, pair in read.items():
        mine, other = (metric.parts(z, target) for z in pair)
        found[modality] = Probe(*map(metric.estimate, (mine, other, other - mine)))
    return found
