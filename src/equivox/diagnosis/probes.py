"""Probes: what an encoder has learned, whatever the fusion makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.diagnosis.metric import Estimate, estimate, merits
from equivox.features import vector
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


def probe(task: Task, fit: Split, held: Split, logistic: bool = True) -> Tensor:
    """(samples,) merits on `held` of a linear model fitted on `fit`.

    Logistic regression for classes; ridge regression, of labels as 0 and 1, otherwise.

    :param logistic: False for ridge regression of classes too, as one-hot rows: faster.
    :raises ValueError: For dense prediction, whose features have no single vector a sample.
    """
    if isinstance(task, Dense):
        raise ValueError(
            "A probe reads one vector a sample. Found `Dense`, which answers at every position."
        )
    if isinstance(task, Classification):
        labels = fit.target if fit.target.ndim == 1 else fit.target.argmax(-1)
        classes = task.classes or int(labels.max()) + 1
        regress = logistic_probe if logistic else linear_probe
        said = regress(fit.features, labels, held.features, classes)
    elif isinstance(task, MultiLabel):
        said = linear_probe(fit.features, fit.target.double(), held.features) - 0.5
    else:
        said = linear_probe(fit.features, fit.target, held.features)
    return merits(task, said, held.target)


def probes(
    task: Task,
    joint: Mapping[str, tuple[Split, Split]],
    alone: Mapping[str, tuple[Split, Split]],
) -> dict[str, Probe]:
    """Each encoder's probe in the network and trained alone.

    :param joint: By modality, the features of the training and of the test data in the network.
    :param alone: The same of the models trained alone; the same samples in the same order.
    """
    found = {}
    for modality, (fit, held) in joint.items():
        mine, other = probe(task, fit, held), probe(task, *alone[modality])
        found[modality] = Probe(estimate(mine), estimate(other), estimate(other - mine))
    return found
