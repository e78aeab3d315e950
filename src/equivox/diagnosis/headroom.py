"""Headroom: how much better than joint training each modality alone and a late fusion would be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.diagnosis.answers import Answers
from equivox.diagnosis.metric import Estimate, estimate, merits
from equivox.task import Classification, Dense, MultiLabel, Regression, Task


@dataclass(frozen=True)
class Headroom:
    """The metric of what one could have had, on the same samples.

    Attributes: `chance`, of an answer that does not look at the inputs; `alone`, of each modality's
    model trained alone; `best_single`, its name with the best metric on the validation data;
    `joint`, of the network; `late_fusion`, of the mean of the unimodal models' probabilities;
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


def headroom(answers: Answers, alone: Mapping[str, Tensor], best_single: str) -> Headroom:
    """Compare the network with its modalities alone.

    :param alone: Each modality's logits (samples, outputs) of a model trained alone, in the order
        of the answers.
    :param best_single: The modality that is best on the validation data: chosen there, not here.
    """
    task, target = answers.task, answers.target
    joint = merits(task, answers.whole, target)
    single = {m: merits(task, z, target) for m, z in alone.items()}
    late = merits(task, late_fusion(task, alone), target)
    return Headroom(
        chance(answers),
        {m: estimate(rows) for m, rows in single.items()},
        best_single,
        estimate(joint),
        estimate(late),
        estimate(late - joint),
        estimate(single[best_single] - joint),
    )


def late_fusion(task: Task, alone: Mapping[str, Tensor]) -> Tensor:
    """Logits of the mean of the unimodal models' probabilities (for regression: of the answers)."""
    mean = torch.stack([task.probabilities(z) for z in alone.values()]).mean(0)
    return task.logits(mean)


def chance(answers: Answers) -> float:
    """The metric of the best constant answer: the most frequent class, or the mean.

    Labels: the best number of the most frequent ones. Exactly 0 for R2.
    """
    task, target = answers.task, answers.target
    if isinstance(task, Regression):
        return 0.0
    if isinstance(task, Classification):
        truth = target if target.ndim == 1 else target.argmax(-1)
        return float(truth.bincount().max()) / len(truth)
    if isinstance(task, MultiLabel):
        constants = most_frequent((target > 0.5).double().mean(0))
    elif isinstance(task, Dense):
        counted = target[target != task.ignore_index]
        classes = answers.whole.shape[1]
        best = counted.bincount(minlength=classes).argmax() if len(counted) else torch.tensor(0)
        shape = (1, classes, *[1] * (target.ndim - 1))
        constants = [F.one_hot(best, classes).double().view(shape).to(target.device)]
    else:
        raise TypeError(f"Chance is known for the tasks of equivox. Found `{task!r}`.")
    said = [c.expand(len(target), *c.shape[1:]) for c in constants]
    return max(float(task.correct(z, target).double().mean()) for z in said)


def most_frequent(share: Tensor) -> list[Tensor]:
    """(1, labels) logits that say the k most frequent labels, for every k."""
    rank = share.argsort(descending=True, stable=True).argsort()
    return [(0.5 + k - rank - 1.0)[None] for k in range(len(share) + 1)]
