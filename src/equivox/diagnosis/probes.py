"""Probes: what an encoder has learned, whatever the fusion makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from equivox.diagnosis.metric import Estimate, estimate, merits
from equivox.functional.probe import linear_probe, logistic_probe
from equivox.task import Classification, Dense, MultiLabel, Task


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


def probe(task: Task, fit: Split, held: Split) -> Tensor:
    """(samples,) merits on `held` of a linear model fitted on `fit`.

    Logistic regression for classes; ridge regression, of labels as 0 and 1, otherwise.

    :raises ValueError: For dense prediction, whose features have no single vector a sample.
    """
    if isinstance(task, Dense):
        raise ValueError(
            "A probe reads one vector a sample. Found `Dense`, which answers at every position."
        )
    if isinstance(task, Classification):
        labels = fit.target if fit.target.ndim == 1 else fit.target.argmax(-1)
        classes = task.classes or int(labels.max()) + 1
        said = logistic_probe(fit.features, labels, held.features, classes)
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
