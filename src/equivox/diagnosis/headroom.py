"""Headroom: how much better than joint training each modality alone and a late fusion would be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from equivox.diagnosis.answers import Answers
from equivox.diagnosis.late_fusion import LateFusion
from equivox.diagnosis.metric import Estimate, Metric, columns, metric_of
from equivox.functional.labels import class_counts
from equivox.task import Classification, Dense, MultiLabel, Regression


@dataclass(frozen=True)
class Headroom:
    """The metric of what one could have had, on the same samples.

    Attributes: `chance`, of an answer that does not look at the inputs; `alone`, of each modality's
    model trained alone; `best_single`, its name with the best metric on the validation data;
    `joint`, of the network; `late_fusion`, of what the unimodal models say together;
    `gain`, of late fusion over joint, and `single_gain`, of the best single one over joint, paired
    by sample.
    """

    chance: float
    alone: Mapping[str, Estimate]
    best_single: str
    joint: Estimate
    late_fusion: Estimate
    gain: Estimate
    single_gain: Estimate

    @property
    def alarm(self) -> bool:
        """Whether late fusion or a single modality beats the joint network beyond the interval."""
        return self.gain.low > 0 or self.single_gain.low > 0

    def to_json(self) -> dict[str, Any]:
        """The headroom in plain values."""
        return asdict(self) | {"alarm": self.alarm}


def headroom(
    answers: Answers,
    alone: Mapping[str, Tensor],
    best_single: str,
    late: LateFusion,
    metric: Metric | None = None,
) -> Headroom:
    """Compare the network with its modalities alone.

    :param alone: Each modality's logits (samples, outputs) of a model trained alone, in the order
        of the answers.
    :param best_single: The modality that is best on the validation data: chosen there, not here.
    :param late: The late fusion of these models, fitted there as well.
    """
    metric, target = metric or metric_of(answers.task), answers.target
    joint = metric.parts(answers.whole, target)
    single = {m: metric.parts(z, target) for m, z in alone.items()}
    together = metric.parts(late(alone), target)
    return Headroom(
        chance(answers, metric),
        {m: metric.estimate(x) for m, x in single.items()},
        best_single,
        metric.estimate(joint),
        metric.estimate(together),
        metric.estimate(together - joint),
        metric.estimate(single[best_single] - joint),
    )


def chance(answers: Answers, metric: Metric | None = None) -> float:
    """The metric of the best constant answer: how often each class occurs, or the mean.

    Labels: how often each occurs, or the best number of the most frequent ones; numbers: the mean
    or the median. Exactly 0 for R2.
    """
    task, target = answers.task, answers.target
    metric = metric or metric_of(task)
    if metric.name == "r2":
        return 0.0
    said = [c.expand(len(target), *c.shape[1:]) for c in _constants(answers)]
    return max(metric.value(z, target) for z in said)


def _constants(answers: Answers) -> list[Tensor]:
    """(1, outputs, …) logits of answers that do not look at the inputs."""
    task, target = answers.task, answers.target
    if isinstance(task, Regression):
        y = columns(target)
        return [y.mean(0, keepdim=True), y.median(0, keepdim=True).values]
    if not isinstance(task, Classification | MultiLabel | Dense):
        raise TypeError(f"Chance is known for the tasks of equivox. Found `{task!r}`.")
    counts = class_counts(task, target, answers.whole.shape[1])
    if isinstance(task, MultiLabel):
        share = counts / len(target)
        return [task.logits(share)[None], *most_frequent(share)]
    places = answers.whole.shape[2:]
    said = task.logits(counts / counts.sum().clamp(min=1))
    return [said.view(1, -1, *[1] * len(places)).expand(1, -1, *places)]


def most_frequent(share: Tensor) -> list[Tensor]:
    """(1, labels) logits that say the k most frequent labels, for every k."""
    rank = share.argsort(descending=True, stable=True).argsort()
    return [(0.5 + k - rank - 1.0)[None] for k in range(len(share) + 1)]
