"""The metrics that each task can be diagnosed by, its usual one first."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.diagnosis.metric import Metric, columns, counting, errors, merits, variance, varying
from equivox.functional.labels import class_numbers
from equivox.task import Classification, Dense, MultiLabel, Regression

if TYPE_CHECKING:
    from equivox.task import Task


SHARE = (0.0, 1.0)
"""The ends of a metric that is a share."""


def metrics_of(task: Task) -> dict[str, Metric]:
    """The metrics of a task by their names.

    Every task has the usual one, see `metric.merits`, and `loss`, the negative mean of its loss
    over the samples. Those that are no means over samples are torchmetrics'. Means over classes or
    labels are over those that occur, for F1 and the intersection over union also over those that
    are said; the area under the ROC curve needs one that is lacking in other samples.

    >>> from equivox import Classification
    >>> list(metrics_of(Classification(3)))
    ['accuracy', 'balanced_accuracy', 'f1', 'auroc', 'loss']
    """
    for kind, known in _KNOWN.items():
        if isinstance(task, kind):
            found = known(task)
            break
    else:
        found = [Metric("correct", "metric", partial(merits, task))]
    loss = Metric("loss", "negative loss", partial(_negative_loss, task), accuracy_like=False)
    return {each.name: each for each in (*found, loss)}


def _of_classes(task: Classification) -> list[Metric]:
    return [
        Metric("accuracy", "accuracy", partial(merits, task), ends=SHARE),
        _over_present("balanced_accuracy", "balanced accuracy", "multiclass_accuracy", task),
        _counted("f1", "macro F1", "multiclass_f1_score", task),
        _over_present("auroc", "area under the ROC curve", "multiclass_auroc", task, curve=True),
    ]


def _of_labels(task: MultiLabel) -> list[Metric]:
    return [
        Metric("example_f1", "F1", partial(merits, task), ends=SHARE),
        _counted("f1", "macro F1", "multilabel_f1_score", task),
        _over_present("map", "mean average precision", "multilabel_average_precision", task),
    ]


def _of_numbers(_: Regression) -> list[Metric]:
    return [
        Metric("r2", "R²", _r2_parts, ends=(-math.inf, 1.0)),
        Metric("mae", "negative absolute error", _negative_error, accuracy_like=False),
    ]


def _of_positions(task: Dense) -> list[Metric]:
    of = partial(_counted, task=task, ignore_index=task.ignore_index)
    return [
        Metric("sample_accuracy", "accuracy of the positions", partial(merits, task), ends=SHARE),
        of("accuracy", "accuracy of all positions", "multiclass_accuracy", average="micro"),
        of("miou", "mean intersection over union", "multiclass_jaccard_index"),
    ]


_KNOWN: dict[type[Task], Callable[[Any], list[Metric]]] = {
    Classification: _of_classes,
    MultiLabel: _of_labels,
    Regression: _of_numbers,
    Dense: _of_positions,
}


def _negative_loss(task: Task, logits: Tensor, target: Any) -> Tensor:
    logits, target = counting(task, logits.double(), target)
    return -task.loss(logits, target, reduction="none")


def _r2_parts(logits: Tensor, target: Tensor) -> Tensor:
    """What every sample adds to R2, by its error and by what it adds to the variance of the target.

    The second has a mean of zero. Without it intervals would take that variance for known, and be
    too narrow.
    """
    y = columns(target)
    found = errors(logits, target)
    spread = ((y - y.mean(0)).square() / variance(y))[:, varying(y)]
    return (1 - found + found.mean(0) * (spread - 1)).mean(1)


def _negative_error(logits: Tensor, target: Tensor) -> Tensor:
    y = columns(target)
    return -(y - logits.reshape(y.shape).double()).abs().mean(1)


def _counted(name: str, label: str, function: str, task: Task, **options: Any) -> Metric:
    """A metric of torchmetrics, the mean over classes or labels where nothing else is said."""

    def of(said: Tensor, target: Tensor) -> Tensor:
        found: Tensor = _function(function)(
            said,
            _truth(task, target),
            said.shape[1],
            **{"average": "macro", "validate_args": False, **options},
        )
        return found

    return Metric(name, label, of, mean=False, reads=task.probabilities, ends=SHARE)


def _over_present(
    name: str, label: str, function: str, task: Task, *, curve: bool = False
) -> Metric:
    """The mean over the classes or labels that occur; of a curve, also lack somewhere."""

    def of(said: Tensor, target: Tensor) -> Tensor:
        truth = _truth(task, target)
        options = {"average": "none", "validate_args": False}
        each: Tensor = _function(function)(said, truth, said.shape[1], **options)
        several = truth.ndim > 1
        counts = truth.sum(0) if several else truth.bincount(minlength=said.shape[1])
        there = (counts > 0) & (counts < len(truth)) if curve else counts > 0
        return each[there].mean()

    return Metric(name, label, of, mean=False, reads=task.probabilities, ends=SHARE)


def _function(name: str) -> Callable[..., Any]:
    try:
        from torchmetrics.functional import classification
    except ImportError as error:
        raise ImportError(
            "Metrics that are no means over samples are torchmetrics'. Found none installed. Run "
            '`pip install "equivox[bench]"`.'
        ) from error

    def quietly(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():  # of a class that a resample lacks
            warnings.simplefilter("ignore", UserWarning)
            return getattr(classification, name)(*arguments, **options)

    return quietly


def _truth(task: Task, target: Tensor) -> Tensor:
    if isinstance(task, MultiLabel):
        return (target > 0.5).long()
    return class_numbers(target) if isinstance(task, Classification) else target
