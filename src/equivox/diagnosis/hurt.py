"""Who is hurt: the classes and samples that the neglected modality alone would have got right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.answers import Answers
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.shares import share
from equivox.errors import nearest
from equivox.functional.confidence import confidence
from equivox.functional.labels import class_numbers
from equivox.task import Dense, MultiLabel, Regression, Task

if TYPE_CHECKING:
    from equivox.balancer import Balancer

MOST_CASES = 24


@dataclass(frozen=True)
class HurtClass:
    """One class, and how much of it is found.

    Attributes: `number` of the class or label; `samples` that show it; `network` and `alone`, the
    recall of the network and of each modality's model trained alone: the share of these samples (of
    their positions, for dense tasks) that is found; `missed`, the share that the neglected modality
    alone finds and the network does not.
    """

    number: int
    samples: int
    network: Estimate
    alone: Mapping[str, Estimate]
    missed: Estimate


@dataclass(frozen=True)
class Case:
    """One sample that the neglected modality alone answers better than the network.

    Attributes: `index`, its number; `target`, `network` and `modality`, the truth and the two
    answers: the class, the labels that are set, or the value; for dense tasks the number of
    positions that count and of those answered rightly; `network_confidence` and
    `modality_confidence`, None for regression; `excess`, for regression the network's squared error
    minus the modality's, else None.
    """

    index: int
    target: Any
    network: Any
    modality: Any
    network_confidence: float | None
    modality_confidence: float | None
    excess: float | None


@dataclass(frozen=True)
class Hurt:
    """What the neglect of one modality costs.

    Attributes: `share` of the samples that the modality alone answers rightly and the network
    wrongly, see `use.routing` (for regression: with a smaller squared error); `classes`, the most
    missed first, empty for regression; `cases`, see `cases`.
    """

    modality: str
    share: Estimate
    classes: tuple[HurtClass, ...]
    cases: tuple[Case, ...]

    def to_json(self) -> dict[str, Any]:
        """The hurt in plain values."""
        return asdict(self)


def hurt(answers: Answers, alone: Mapping[str, Tensor], modality: str) -> Hurt:
    """Who is hurt by the neglect of a modality.

    :param alone: Each modality's logits (samples, outputs) of a model trained alone, in the order
        of the answers.
    :param modality: The neglected one.
    :raises ValueError: For a modality that is not in `alone`.
    """
    if modality not in alone:
        raise ValueError(
            f"`modality` should be one of {list(alone)}. Found `{modality}`. "
            f"{nearest(modality, list(alone))}"
        )
    missed = _missed(answers, alone[modality])
    listed = cases(answers, alone[modality])
    return Hurt(modality, share(missed), classes(answers, alone, modality), listed)


def class_names(balancer: Balancer, given: Sequence[str] | None, loader: Any) -> tuple[str, ...]:
    """The names of the classes: those given, or the attribute `classes` of a loader's data set.

    Empty where neither is there, or the task has no classes.

    :raises ValueError: For another number of given names than there are outputs.
    """
    known = getattr(getattr(loader, "dataset", None), "classes", ()) if given is None else given
    outputs = 0 if isinstance(balancer.task, Regression) else balancer.model.outputs
    if isinstance(known, Sequence) and len(known) == outputs:
        return tuple(map(str, known))
    if given:
        raise ValueError(
            f"`classes` should name each of the {outputs} classes. Found {len(given)} names. Pass "
            "one a class, in the order of their numbers."
        )
    return ()


def classes(answers: Answers, alone: Mapping[str, Tensor], modality: str) -> tuple[HurtClass, ...]:
    """The classes that occur, those of which the network misses most first."""
    task, target = answers.task, answers.target
    if isinstance(task, Regression):
        return ()
    truth = _truth(task, target)
    network = _hits(task, answers.whole, target)
    single = {m: _hits(task, z, target) for m, z in alone.items()}
    missed = single[modality] & ~network

    def of(number: int) -> HurtClass:
        here = truth == number
        found = {m: _share(hit, here) for m, hit in single.items()}
        samples = int(here.any(1).sum())
        return HurtClass(number, samples, _share(network, here), found, _share(missed, here))

    numbers = truth[truth >= 0].unique().tolist()
    return tuple(sorted(map(of, numbers), key=lambda c: -c.missed.value))


def cases(answers: Answers, alone: Tensor, most: int = MOST_CASES) -> tuple[Case, ...]:
    """The samples that a modality alone answers rightly and the network wrongly.

    Those of which the modality is most confident first; for regression, where the network's squared
    error exceeds the modality's, the largest excess first.

    :param alone: (samples, outputs) logits of the modality's model trained alone.
    """
    by = _excess(answers, alone) if isinstance(answers.task, Regression) else _sure(answers, alone)
    chosen = _missed(answers, alone).nonzero().flatten()
    order = by[chosen].argsort(descending=True, stable=True)
    return tuple(_case(answers, alone, int(row)) for row in chosen[order][:most])


def varied(cases: Sequence[Case]) -> list[Case]:
    """The same cases, the first of every target before the second of any."""
    seen: Counter[str] = Counter()
    turns = []
    for case in cases:
        turns.append(seen[str(case.target)])
        seen[str(case.target)] += 1
    return [case for _, case in sorted(zip(turns, cases, strict=True), key=lambda pair: pair[0])]


def _case(answers: Answers, alone: Tensor, row: int) -> Case:
    task, one = answers.task, answers.rows(torch.tensor([row]))
    here = alone[row : row + 1]
    target, network, modality = _said(task, one.whole, here, one.target)
    numbers = (int(one.index[0]), target, network, modality)
    if isinstance(task, Regression):
        return Case(*numbers, None, None, float(_excess(one, here)))
    return Case(*numbers, float(_sure(one, one.whole)), float(_sure(one, here)), None)


def _said(task: Task, network: Tensor, alone: Tensor, target: Tensor) -> tuple[Any, Any, Any]:
    """The truth and the two answers for one sample, in plain values."""
    if isinstance(task, Regression):
        rows = [x.reshape(-1).tolist() for x in (target, network, alone)]
        truth, one, other = (row[0] if len(row) == 1 else row for row in rows)
        return truth, one, other
    if isinstance(task, MultiLabel):
        sets = (target[0] > 0.5, network[0] > 0, alone[0] > 0)
        labels = [said.nonzero().flatten().tolist() for said in sets]
        return labels[0], labels[1], labels[2]
    if isinstance(task, Dense):
        counted = int((_truth(task, target) >= 0).sum())
        right = [int(_hits(task, z, target).sum()) for z in (network, alone)]
        return counted, right[0], right[1]
    return int(_truth(task, target)), int(network.argmax(-1)), int(alone.argmax(-1))


def _missed(answers: Answers, alone: Tensor) -> Tensor:
    """(samples,) whether the modality alone is right and the network wrong."""
    task, target = answers.task, answers.target
    if isinstance(task, Regression):
        return _excess(answers, alone) > 0
    right, network = (task.correct(z, target) > 0.5 for z in (alone, answers.whole))
    return right & ~network


def _excess(answers: Answers, alone: Tensor) -> Tensor:
    """(samples,) the network's squared error minus the modality's, averaged over the outputs."""
    target = answers.target.reshape(len(answers.target), -1).double()
    pair = (z.reshape(target.shape).double() for z in (answers.whole, alone))
    network, single = ((z - target).square().mean(1) for z in pair)
    return network - single


def _sure(answers: Answers, logits: Tensor) -> Tensor:
    return confidence(logits.double(), answers.target, answers.task)


def _truth(task: Task, target: Tensor) -> Tensor:
    """(samples, decisions) the class of every decision, -1 where there is none to be found."""
    if isinstance(task, MultiLabel):
        numbers = torch.arange(target.shape[1], device=target.device)
        return torch.where(target > 0.5, numbers, -1)
    if isinstance(task, Dense):
        flat = target.reshape(len(target), -1)
        return torch.where(flat != task.ignore_index, flat, -1)
    return class_numbers(target)[:, None]


def _hits(task: Task, logits: Tensor, target: Tensor) -> Tensor:
    """(samples, decisions) whether every class that is there is found."""
    truth = _truth(task, target)
    if isinstance(task, MultiLabel):
        return (logits > 0) & (truth >= 0)
    return (logits.argmax(1).reshape(truth.shape) == truth) & (truth >= 0)


def _share(hits: Tensor, here: Tensor) -> Estimate:
    """The share of hits among the decisions of a class, a mean over the samples that have some."""
    some = here.any(1)
    return share((hits & here)[some].sum(1) / here[some].sum(1))
