"""Is it the data? Faults of inputs, labels, splits and set-up that no balancing can cure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from equivox.diagnosis.tables import Split, Table, finite, read, scrambled
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression, Task

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.diagnosis.metric import Estimate

LISTED = 10
"""So many numbers of samples are listed."""

CORRELATED = 0.999
ACCURATE = 0.999
"""Above these, a column is a copy of another one, or tells the target."""

SUPPORT = 20.0
"""The least number of samples that a correlation should rest on, (sum z^2)^2 / sum z^4: two rare
pixels that light up in the same image correlate perfectly."""

SCALES = 100.0
"""The largest ratio of two modalities' standard deviations that an optimizer should be given."""

IMBALANCE = 10.0
"""The largest ratio of the sizes of two classes that is not remarked upon."""

SEVERITIES = ("fault", "warning", "fine")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes: `code` of the check; `modality`, None where it concerns all or none; `severity`,
    "fault", "warning" or "fine"; `what` was found; `cure`, what to do, empty where it is fine;
    `count` of the samples, columns or parameters concerned; `samples`, the numbers of the first
    ones; `pairs`, for duplicates, the numbers in the two splits.
    """

    code: str
    modality: str | None
    severity: str
    what: str
    cure: str = ""
    count: int = 0
    samples: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The finding in plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """What the checks look at."""

    model: Multimodal
    task: Task
    optimizer: torch.optim.Optimizer | None
    train: Split
    validation: Split | None
    test: Split
    alone: Mapping[str, Estimate]
    chance: float | None

    @property
    def splits(self) -> list[Split]:
        """All splits that were given."""
        return [s for s in (self.train, self.validation, self.test) if s is not None]


def data_checks(
    subject: Balancer | Multimodal,
    train: Iterable[Any],
    validation: Iterable[Any] | None,
    test: Iterable[Any],
    *,
    task: Task | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    alone: Mapping[str, Estimate] | None = None,
    chance: float | None = None,
) -> list[Finding]:
    """Look for faults of the data and the set-up before blaming the optimisation.

    :param subject: The network. Its modules' modes are looked at as they are.
    :param train: Batches of `(inputs, target)` or `(inputs, target, index)`; each loader is read
        once. Without an index, samples are counted in the order of the loader.
    :param task: Needed where `subject` is a model.
    :param optimizer: Of the training; by default the one attached to the balancer.
    :param alone: The metric of each modality's model trained alone.
    :param chance: The metric of an answer that does not look. By default the most frequent class's
        share of the test data, 0 for R2, and unknown for labels and dense tasks.
    :returns: Faults first, then warnings, then what is fine: at least one finding a check.
    :raises ValueError: For a model without `task`, an empty loader, or modalities that the model
        does not have.
    """
    model, task, optimizer = _parts(subject, task, optimizer)
    held = None if validation is None else read(model, validation, "validation")
    first, last = read(model, train, "training"), read(model, test, "test")
    facts = Facts(model, task, optimizer, first, held, last, alone or {}, chance)
    found = []
    for code, (check, fine) in CHECKS.items():
        found += list(check(facts)) or [Finding(code, None, "fine", fine)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _parts(
    subject: Any, task: Task | None, optimizer: torch.optim.Optimizer | None
) -> tuple[Multimodal, Task, torch.optim.Optimizer | None]:
    if not isinstance(subject, Multimodal):
        return subject.model, task or subject.task, optimizer or subject.optimizer
    if task is None:
        raise ValueError("A model should come with its task. Found none. Pass `task=`.")
    return subject, task, optimizer


# ── the checks ──────────────────────────────────────────────────────────────────────────────────


def _at_chance(facts: Facts) -> Iterator[Finding]:
    chance = _chance(facts)
    if not facts.alone or chance is None:
        missing = "no modality's metric alone" if not facts.alone else "no `chance`"
        yield _skipped("chance", missing)
        return
    for modality, found in facts.alone.items():
        if found.low <= chance:
            yield Finding(
                "chance",
                modality,
                "warning",
                f"`{modality}` alone reaches {found.value:.3f} ({found.low:.3f} to "
                f"{found.high:.3f}), and chance is {chance:.3f}: nothing shows that it says "
                "anything about the target.",
                "Look at its inputs beside their labels, and train its encoder alone for longer or "
                "with another learning rate. If it stays at chance, leave the modality out.",
            )


def _chance(facts: Facts) -> float | None:
    if facts.chance is not None or isinstance(facts.task, Regression):
        return facts.chance or 0.0
    if not isinstance(facts.task, Classification):
        return None
    return float(_labels(facts.test.target).bincount().max()) / len(facts.test.target)


def _labels(target: Tensor) -> Tensor:
    """Class numbers, also of targets that are distributions."""
    return target.argmax(-1) if target.ndim > 1 else target.long()


def _nonfinite(facts: Facts) -> Iterator[Finding]:
    cure = "Repair these samples where they are read, or leave them out."
    for split in facts.splits:
        bad = {f"`{m}`": (m, table.bad) for m, table in split.tables.items()}
        targets: Any = {"The target": (None, ~finite(split.target))}
        for name, (modality, rows) in (bad | targets).items():
            if count := int(rows.sum()):
                numbers = _first(split.index[rows])
                what = (
                    f"{name} holds NaN or infinity in {count} of {len(rows)} {split.name} samples: "
                    f"{_listed(numbers, count)}."
                )
                yield Finding("nonfinite", modality, "fault", what, cure, count, numbers)


def _constant(facts: Facts) -> Iterator[Finding]:
    for m, table in facts.train.tables.items():
        x = table.columns[facts.train.there(m)]
        if len(x) < 2 or not x.shape[1]:
            continue
        same = x.amax(0) == x.amin(0)
        count, width = int(same.sum()), len(same)
        # The borders of images and the ends of texts are constant in good data too.
        if count == width or (count and (table.plain or 2 * count >= width)):
            numbers = _first(same.nonzero().flatten())
            yield Finding(
                "constant",
                m,
                "fault" if count == width else "warning",
                f"{count} of {width} features of `{m}` are the same in all training samples: "
                f"columns {_listed(numbers, count)}.",
                "See whether the modality is read and preprocessed rightly; drop such columns.",
                count,
            )


def _duplicated(facts: Facts) -> Iterator[Finding]:
    tables = facts.train.tables
    for a, b in combinations(tables, 2):
        both = tables[a].there & tables[b].there
        one, other = tables[a].hashes[both], tables[b].hashes[both]
        if len(one.unique()) > 1 and torch.equal(one, other):
            yield _copy(a, b, "is an exact copy of", int(both.sum()))
            continue
        kept = facts.train.there(a, b)
        first, usable = _standardised(tables[a].columns[kept])
        second, usable_too = _standardised(tables[b].columns[kept])
        alike = (first.T @ second).abs() > CORRELATED
        mine, theirs = alike.any(1), alike.any(0)
        if not bool(mine.any()):
            continue
        if bool((mine == usable).all() and (theirs == usable_too).all()):
            yield _copy(a, b, f"is, with correlations above {CORRELATED}, a copy of", len(first))
        else:
            yield _shared(a, b, alike)


def _copy(a: str, b: str, how: str, count: int) -> Finding:
    what = f"`{b}` {how} `{a}` in the {count} training samples compared."
    cure = f"See whether `{a}` is read twice. A copy adds nothing: leave `{b}` out."
    return Finding("duplicated", b, "fault", what, cure, count)


def _shared(a: str, b: str, alike: Tensor) -> Finding:
    pairs = alike.nonzero()
    text = ", ".join(f"{i} of `{a}` and {j} of `{b}`" for i, j in pairs[:3].tolist())
    count = int(alike.any(0).sum())
    what = f"{count} columns of `{b}` equal one of `{a}`, up to a scale: columns {text}."
    cure = "Keep them in one of the two modalities, or what they say is counted twice."
    return Finding("duplicated", b, "warning", what, cure, count)


def _standardised(x: Tensor, support: float = SUPPORT) -> tuple[Tensor, Tensor]:
    """Columns of mean zero and length one, zero where they vary too little; and which do not."""
    wide = x.float()
    centred = wide - wide.mean(0, dtype=torch.float64).float()
    length = centred.norm(dim=0)
    varies = length > 1e-6 * wide.norm(dim=0)  # more than rounding
    z = torch.where(varies, centred / length.clamp(min=1e-30), 0)
    usable = varies & (1 / z.square().square().sum(0).clamp(min=1e-30) >= support)
    return torch.where(usable, z, 0), usable


def _leak(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.task, Dense) or _few_targets(facts):
        dense = isinstance(facts.task, Dense)
        yield _skipped("leak", "a target at every position" if dense else "a single target value")
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
                    f"`{m}` gives the target away: {how}, column {_listed(_first(columns), count)}"
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
    sides = [(x, (_labels(y) if isinstance(task, Classification) else y)) for x, y in (train, test)]
    if any(y.numel() != len(y) for _, y in sides):
        return torch.empty(0), ""
    same = [(x == y.reshape(-1, 1).float()).all(0) for x, y in sides]
    return (same[0] & same[1]).nonzero().flatten(), "it holds the target itself"


def _telling(train: Side, test: Side, task: Task) -> Columns:
    """Columns in proportion to the target, to one of its labels, or to being of one class."""
    found = []
    for (x, y), support in ((train, SUPPORT), (test, 0.0)):
        if isinstance(task, Classification):
            y = F.one_hot(_labels(y), _count(train, test))
        known = y.reshape(len(y), -1)
        r = _standardised(x, support)[0].T @ _standardised(known, support)[0]
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
    x, y = train[0][shuffled], _labels(train[1])[shuffled]  # equal values in no order of classes
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
        if _recall(ordered[c], cleaned[c], other[c], _labels(test[1])) > ACCURATE
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
    return int(max(_labels(y).max() for _, y in sides)) + 1


def _scales(facts: Facts) -> Iterator[Finding]:
    spread = {m: t.deviation for m, t in facts.train.tables.items() if t.deviation > 0}
    if len(spread) < 2:
        return
    large, small = max(spread, key=spread.__getitem__), min(spread, key=spread.__getitem__)
    ratio = spread[large] / spread[small]
    if ratio > SCALES:
        yield Finding(
            "scales",
            large,
            "warning",
            f"The inputs of `{large}` have a standard deviation of {spread[large]:.3g}, {ratio:.0f}"
            f" times that of `{small}`, {spread[small]:.3g}. With one learning rate the larger one "
            "is learned first.",
            "Standardise each modality with the mean and deviation of the training data.",
        )


def _frozen(facts: Facts) -> Iterator[Finding]:
    for name, part in _modules(facts.model).items():
        every = list(part.parameters())
        fixed = [p for p in every if not p.requires_grad]
        if fixed:
            yield Finding(
                "frozen",
                _modality(facts, name),
                "warning",
                f"{len(fixed)} of {len(every)} parameters of {_called(name)} are frozen.",
                "If it should learn, `requires_grad_(True)` before the optimizer is built.",
                len(fixed),
            )


def _missing(facts: Facts) -> Iterator[Finding]:
    if facts.optimizer is None:
        yield _skipped("optimizer", "no optimizer")
        return
    held = {id(p) for group in facts.optimizer.param_groups for p in group["params"]}
    for name, part in _modules(facts.model).items():
        left = [k for k, p in part.named_parameters() if p.requires_grad and id(p) not in held]
        if left:
            yield Finding(
                "optimizer",
                _modality(facts, name),
                "fault",
                f"{len(left)} parameters of {_called(name)} are not in the optimizer: "
                + ", ".join(f"`{k}`" for k in left[:5])
                + (", …." if len(left) > 5 else "."),
                "Build it with `balancer.parameters()`, after the model is complete.",
                len(left),
            )


def _batch_norm(facts: Facts) -> Iterator[Finding]:
    if not any(m.training for m in facts.model.modules() if not isinstance(m, _BatchNorm)):
        yield _skipped("batchnorm", "a model that is not in training mode")
        return
    for name, part in _modules(facts.model).items():
        found = [k for k, m in part.named_modules() if isinstance(m, _BatchNorm) and not m.training]
        if found:
            yield Finding(
                "batchnorm",
                _modality(facts, name),
                "warning",
                f"{len(found)} BatchNorm layers of {_called(name)} are in eval mode while the rest "
                "trains: " + ", ".join(f"`{k or name}`" for k in found[:5]) + ".",
                "Call `model.train()` before each epoch, also after every evaluation.",
                len(found),
            )


def _modules(model: Multimodal) -> dict[str, nn.Module]:
    """The encoders by modality, and the rest."""
    heads = {} if model.heads is None else {"heads of their own": model.heads}
    return {**dict(model.encoders.items()), "the fusion": model.fusion, **heads}


def _modality(facts: Facts, name: str) -> str | None:
    return name if name in facts.model.modalities else None


def _called(name: str) -> str:
    return name if " " in name else f"the encoder of `{name}`"


def _duplicates(facts: Facts) -> Iterator[Finding]:
    known = [(facts.train, facts.test, "fault"), (facts.validation, facts.test, "fault")]
    for a, b, severity in (*known, (facts.train, facts.validation, "warning")):
        if a is None or b is None:
            continue
        whole = _overlap(a, b, list(a.tables))
        if whole:
            yield _in_both(a, b, None, severity, whole)
            continue
        for m in a.tables if len(a.tables) > 1 else ():
            if _varied(a.tables[m]) and (part := _overlap(a, b, [m])):
                yield _in_both(a, b, m, "warning", part)


def _overlap(a: Split, b: Split, modalities: Sequence[str]) -> list[tuple[int, int]]:
    """The numbers in both splits of samples with the same inputs; rows of zeros do not count."""
    ours, theirs = _row_hashes(a, modalities), _row_hashes(b, modalities)
    ordered, order = ours.sort(stable=True)
    place = torch.searchsorted(ordered, theirs).clamp(max=len(ordered) - 1)
    same = (ordered[place] == theirs) & (theirs != 0)
    pairs = torch.stack([a.index[order[place[same]]], b.index[same]], 1)
    return [(int(i), int(j)) for i, j in pairs.tolist()]


def _row_hashes(split: Split, modalities: Sequence[str]) -> Tensor:
    """(samples,) of these modalities together; zero for each that is absent or all zero."""
    parts = [scrambled(split.tables[m].hashes) * (2 * k + 1) for k, m in enumerate(modalities)]
    return torch.stack(parts).sum(0)


def _varied(table: Table) -> bool:
    """Whether the samples differ from each other, so that a repetition means something."""
    return len(table.hashes.unique()) > 0.9 * len(table.hashes)


def _in_both(
    a: Split, b: Split, modality: str | None, severity: str, found: list[tuple[int, int]]
) -> Finding:
    which = "the inputs" if modality is None else f"the same `{modality}`"
    pairs = tuple(found[:LISTED])
    text = ", ".join(f"{i} and {j}" for i, j in pairs[:3])
    return Finding(
        "duplicates",
        modality,
        severity,
        f"{len(found)} of {len(b.index)} {b.name} samples have {which} of a {a.name} sample: "
        f"{text}{', …' if len(found) > 3 else ''}.",
        "Split anew so that no sample, and no source of several samples, is in two splits.",
        len(found),
        tuple(j for _, j in pairs),
        pairs,
    )


def _classes(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.task, MultiLabel):
        yield from _rare_labels(facts)
        return
    counts = {s.name: _counts(s, facts.task) for s in facts.splits}
    for name, (values, _) in counts.items():
        if len(values) < 2:
            yield Finding(
                "classes",
                None,
                "fault" if name != "validation" else "warning",
                f"The {name} data have a single target value: {values.tolist()}.",
                "Split anew, with all classes in each split; no metric means anything on one.",
            )
    if not isinstance(facts.task, Regression):
        yield from _unseen(counts)
    if isinstance(facts.task, Classification):
        yield from _unequal(*counts["training"])


def _counts(split: Split, task: Task) -> tuple[Tensor, Tensor]:
    """The values of the target and how often each occurs."""
    target = _labels(split.target) if isinstance(task, Classification) else split.target
    if isinstance(task, Dense):
        target = target[target != task.ignore_index]
    return target.unique(return_counts=True)


def _unseen(counts: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[Finding]:
    test, train = counts["test"][0], counts["training"][0]
    unseen = test[~torch.isin(test, train)]
    if len(unseen):
        yield Finding(
            "classes",
            None,
            "fault",
            f"{len(unseen)} classes of the test data are not in the training data: "
            f"{_listed(_first(unseen), len(unseen))}.",
            "Split anew, or leave them out of the test data.",
            len(unseen),
        )


def _unequal(values: Tensor, sizes: Tensor) -> Iterator[Finding]:
    ratio = float(sizes.max() / sizes.min())
    if ratio > IMBALANCE:
        large, small = int(sizes.argmax()), int(sizes.argmin())
        yield Finding(
            "classes",
            None,
            "warning",
            f"Class {int(values[large])} has {int(sizes[large])} training samples and class "
            f"{int(values[small])} has {int(sizes[small])}: {ratio:.0f} times fewer.",
            "Read the metric class by class, or with equal weights; consider a weighted loss.",
            int(sizes[small]),
        )


def _rare_labels(facts: Facts) -> Iterator[Finding]:
    for split, severity in ((facts.train, "fault"), (facts.test, "warning")):
        share = (split.target > 0.5).double().mean(0)
        fixed = ((share == 0) | (share == 1)).nonzero().flatten()
        if count := len(fixed):
            yield Finding(
                "classes",
                None,
                "fault" if count == len(share) else severity,
                f"{count} labels are the same in all {split.name} samples: "
                f"{_listed(_first(fixed), count)}.",
                "Split anew, or leave these labels out.",
                count,
            )


def _skipped(code: str, found: str) -> Finding:
    return Finding(code, None, "fine", f"Not looked at: found {found}.")


def _first(numbers: Tensor) -> tuple[int, ...]:
    return tuple(int(x) for x in numbers[:LISTED].tolist())


def _listed(numbers: Sequence[int], count: int) -> str:
    return ", ".join(map(str, numbers)) + (", …" if count > len(numbers) else "")


CHECKS: dict[str, tuple[Callable[[Facts], Iterator[Finding]], str]] = {
    "nonfinite": (_nonfinite, "All inputs and targets are finite."),
    "leak": (_leak, "No single column of a modality gives the target away."),
    "duplicates": (_duplicates, "No inputs of one split are in another one."),
    "classes": (_classes, "Every split has several classes, of comparable sizes."),
    "constant": (_constant, "No modality is constant."),
    "duplicated": (_duplicated, "No modality repeats another one."),
    "scales": (_scales, "The modalities' inputs are of comparable scale."),
    "chance": (_at_chance, "No modality that was trained alone is at chance."),
    "frozen": (_frozen, "No parameter is frozen."),
    "optimizer": (_missing, "No parameter that learns is missing from the optimizer."),
    "batchnorm": (_batch_norm, "No BatchNorm is in eval mode while the rest trains."),
}
"""Each check by the code of its findings, with what is fine where it finds nothing."""
