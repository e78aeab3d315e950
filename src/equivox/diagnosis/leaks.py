"""Leaks: columns of a modality that give the target away."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.diagnosis.findings import Facts, Finding, first, listed, skipped
from equivox.diagnosis.tables import SUPPORT, Split, standardised
from equivox.functional.labels import class_numbers
from equivox.task import Classification, Dense, Task

CORRELATED = 0.999
ACCURATE = 0.999
"""Above these, a column tells the target."""


def leak(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.task, Dense) or _few_targets(facts):
        dense = isinstance(facts.task, Dense)
        yield skipped("leak", "a target at every position" if dense else "a single target value")
        return
    for m in facts.train.tables:
        train, test = (_side(split, m) for split in _ends(facts))
        if min(len(train[1]), len(test[1])) < 2 or train[0].shape[1] != test[0].shape[1]:
            continue
        for find in (_equal, _telling, _deciding):
            columns, how = find(train, test, facts.task)
            if count := len(columns):
                yield Finding(
                    "leak",
                    m,
                    "fault",
                    f"`{m}` gives the target away: {how}, column {listed(first(columns), count)}"
                    ", in the training and the test data.",
                    "Find how the label got into the inputs, and take it out. If it is what the "
                    "modality really says, the task needs no other modality.",
                    count,
                )
                break


def _ends(facts: Facts) -> tuple[Split, Split]:
    return facts.train, facts.test


def _few_targets(facts: Facts) -> bool:
    return any(len(s.target.unique(dim=0)) < 2 for s in _ends(facts))


Side = tuple[Tensor, Tensor]
"""The columns of a modality and the targets of the same samples, of one split."""

Columns = tuple[Tensor, str]
"""The numbers of columns, and what they do."""


def _side(split: Split, modality: str) -> Side:
    there = split.there(modality)
    return split.tables[modality].columns[there], split.seen[there]


def _equal(train: Side, test: Side, task: Task) -> Columns:
    """Columns that are the target itself."""
    sides = [train, test]
    if isinstance(task, Classification):
        sides = [(x, class_numbers(y)) for x, y in sides]
    if any(y.numel() != len(y) for _, y in sides):
        return torch.empty(0), ""
    same = [(x == y.reshape(-1, 1).float()).all(0) for x, y in sides]
    return (same[0] & same[1]).nonzero().flatten(), "it holds the target itself"


def _telling(train: Side, test: Side, task: Task) -> Columns:
    """Columns in proportion to the target, to one of its labels, or to being of one class."""
    found = []
    for (x, y), support in ((train, SUPPORT), (test, 0.0)):
        if isinstance(task, Classification):
            y = F.one_hot(class_numbers(y), _count(train, test))
        known = y.reshape(len(y), -1)
        r = standardised(x, support)[0].T @ standardised(known, support)[0]
        found.append(r.abs() > CORRELATED)
    columns = (found[0] & found[1]).any(1).nonzero().flatten()
    return columns, f"a column correlates with it, or with one of its classes, above {CORRELATED}"


def _deciding(train: Side, test: Side, task: Task) -> Columns:
    """Columns of which a few intervals, as many as a tree of depth 2 has, tell the class.

    For more than four classes, one interval a class.
    """
    if not isinstance(task, Classification):
        return torch.empty(0), ""
    intervals = max(4, _count(train, test))
    shuffled = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(0))
    # Equal values are then in no order of classes.
    x, y = train[0][shuffled], class_numbers(train[1])[shuffled]
    ordered, order = x.T.contiguous().sort(dim=1, stable=True)
    labels = y[order]
    stray = torch.zeros_like(labels, dtype=torch.bool)
    before, inside, after = labels[:, :-2], labels[:, 1:-1], labels[:, 2:]
    stray[:, 1:-1] = (inside != before) & (inside != after)
    changes = (labels[:, 1:] != labels[:, :-1]).sum(1) - 2 * stray.sum(1)
    simple = (changes < intervals) & (stray.double().mean(1) <= 1 - ACCURATE)
    cleaned = torch.where(stray, labels.roll(1, 1), labels)
    other = test[0].T.contiguous()
    good = [
        c
        for c in simple.nonzero().flatten().tolist()
        if _recall(ordered[c], cleaned[c], other[c], class_numbers(test[1])) > ACCURATE
    ]
    how = f"{intervals} intervals of one column or fewer tell the class above {ACCURATE:.1%}"
    return torch.tensor(good), how


def _recall(ordered: Tensor, labels: Tensor, x: Tensor, truth: Tensor) -> float:
    """The mean over the classes of the share found by the label of the nearest training value."""
    right = torch.searchsorted(ordered, x).clamp(max=len(ordered) - 1)
    left = (right - 1).clamp(min=0)
    nearer = (x - ordered[left]).abs() < (ordered[right] - x).abs()
    hit = labels[torch.where(nearer, left, right)] == truth
    shares = [float(hit[truth == c].double().mean()) for c in truth.unique()]
    return sum(shares) / len(shares)


def _count(*sides: Side) -> int:
    return int(max(class_numbers(y).max() for _, y in sides)) + 1
