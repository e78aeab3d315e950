"""Is it the data? Faults of inputs, labels, splits and set-up that no balancing can cure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.copies import duplicated, duplicates
from equivox.diagnosis.findings import SEVERITIES, SPOILT, Facts, Finding, first, listed, skipped
from equivox.diagnosis.leaks import leak
from equivox.diagnosis.metric import columns, varying
from equivox.diagnosis.set_up import batch_norm, frozen, missing
from equivox.diagnosis.tables import finite, read
from equivox.functional.labels import class_numbers
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression, Task

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.diagnosis.metric import Estimate
    from equivox.diagnosis.tables import Split

SCALES = 100.0
"""The largest ratio of two modalities' standard deviations that an optimizer should be given."""

IMBALANCE = 10.0
"""The largest ratio of the sizes of two classes that is not remarked upon."""


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
    :returns: Faults first, then warnings, then what is fine or was not looked at: at least one
        finding a check.
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
        yield skipped("chance", missing)
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
                "with another learning rate. If it stays at chance, and the network loses nothing "
                "without it, leave the modality out: beside others it may say something.",
            )


def _chance(facts: Facts) -> float | None:
    if facts.chance is not None or isinstance(facts.task, Regression):
        return facts.chance or 0.0
    if not isinstance(facts.task, Classification):
        return None
    return float(class_numbers(facts.test.target).bincount().max()) / len(facts.test.target)


def _nonfinite(facts: Facts) -> Iterator[Finding]:
    cure = "Repair these samples where they are read. They are left out of what is measured."
    for split in facts.splits:
        bad = {f"`{m}`": (m, table.bad) for m, table in split.tables.items()}
        targets: Any = {"The target": (None, ~finite(split.target))}
        for name, (modality, rows) in (bad | targets).items():
            if count := int(rows.sum()):
                numbers = first(split.index[rows])
                what = (
                    f"{name} holds NaN or infinity in {count} of {len(rows)} {split.name} samples: "
                    f"{listed(numbers, count)}."
                )
                severity = "fault" if count >= SPOILT * len(rows) else "warning"
                yield Finding("nonfinite", modality, severity, what, cure, count, numbers)


def _constant(facts: Facts) -> Iterator[Finding]:
    for m, table in facts.train.tables.items():
        x = table.columns[facts.train.there(m)]
        if len(x) < 2 or not x.shape[1]:
            continue
        same = x.amax(0) == x.amin(0)
        count, width = int(same.sum()), len(same)
        # The borders of images and the ends of texts are constant in good data too.
        if count == width or (count and (table.plain or 2 * count >= width)):
            numbers = first(same.nonzero().flatten())
            yield Finding(
                "constant",
                m,
                "fault" if count == width else "warning",
                f"{count} of {width} features of `{m}` are the same in all training samples: "
                f"columns {listed(numbers, count)}.",
                "See whether the modality is read and preprocessed rightly; drop such columns.",
                count,
            )


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


def _classes(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.task, MultiLabel):
        yield from _rare_labels(facts)
        return
    if isinstance(facts.task, Regression):
        yield from _constant_outputs(facts)
        return
    counts = {s.name: _counts(s, facts.task) for s in facts.splits}
    for name, (values, _) in counts.items():
        if len(values) < 2:
            yield _single(name, values)
    yield from _unseen(counts)
    if isinstance(facts.task, Classification):
        yield from _unequal(*counts["training"])


def _counts(split: Split, task: Task) -> tuple[Tensor, Tensor]:
    """The values of the target and how often each occurs."""
    target = class_numbers(split.target) if isinstance(task, Classification) else split.target
    if isinstance(task, Dense):
        target = target[target != task.ignore_index]
    return target.unique(return_counts=True)


def _single(name: str, values: Tensor) -> Finding:
    return Finding(
        "classes",
        None,
        "fault" if name != "validation" else "warning",
        f"The {name} data have a single target value: {values.tolist()}.",
        "Split anew, with all classes in each split; no metric means anything on one.",
    )


def _constant_outputs(facts: Facts) -> Iterator[Finding]:
    for split in facts.splits:
        y = columns(split.target)
        fixed = (~varying(y)).nonzero().flatten()
        if len(fixed) == y.shape[1]:
            yield _single(split.name, y[0])
        elif count := len(fixed):
            yield Finding(
                "classes",
                None,
                "warning",
                f"{count} of {y.shape[1]} outputs of the target are the same in all {split.name} "
                f"samples: outputs {listed(first(fixed), count)}. R2 is over the others.",
                "Split anew, or leave these outputs out.",
                count,
            )


def _unseen(counts: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[Finding]:
    test, train = counts["test"][0], counts["training"][0]
    unseen = test[~torch.isin(test, train)]
    if len(unseen):
        yield Finding(
            "classes",
            None,
            "fault",
            f"{len(unseen)} classes of the test data are not in the training data: "
            f"{listed(first(unseen), len(unseen))}.",
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
                f"{listed(first(fixed), count)}.",
                "Split anew, or leave these labels out.",
                count,
            )


CHECKS: dict[str, tuple[Callable[[Facts], Iterator[Finding]], str]] = {
    "nonfinite": (_nonfinite, "All inputs and targets are finite."),
    "leak": (leak, "No single column of a modality gives the target away."),
    "duplicates": (duplicates, "No inputs of one split are in another one."),
    "classes": (_classes, "Every split has several classes, of comparable sizes."),
    "constant": (_constant, "No modality is constant."),
    "duplicated": (duplicated, "No modality repeats another one."),
    "scales": (_scales, "The modalities' inputs are of comparable scale."),
    "chance": (_at_chance, "No modality that was trained alone is at chance."),
    "frozen": (frozen, "No parameter is frozen."),
    "optimizer": (missing, "No parameter that learns is missing from the optimizer."),
    "batchnorm": (batch_norm, "No BatchNorm is in eval mode while the rest trains."),
}
"""Each check by the code of its findings, with what is fine where it finds nothing."""
