"""The metrics that each task can be diagnosed by, its usual one first."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.diagnosis.metric import Metric, columns, merits
from equivox.functional.labels import class_numbers
from equivox.task import Classification, Dense, MultiLabel, Regression

if TYPE_CHECKING:
    from equivox.task import Task


SHARE = (0.0, 1.0)
"""The ends of a metric that is a share."""


def metrics_of(task: Task) -> dict[str, Metric]:
    """The metrics of a task by their names.

    Every task has the usual one, see `metric.merits`, and `loss`, the negative mean of its loss
    over the samples. Those that are no means over samples are torchmetrics', which leaves classes
    out that neither occur nor are said.

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
        _counted("balanced_accuracy", "balanced accuracy", "multiclass_accuracy", task),
        _counted("f1", "macro F1", "multiclass_f1_score", task),
        _counted("auroc", "area under the ROC curve", "multiclass_auroc", task),
    ]


def _of_labels(task: MultiLabel) -> list[Metric]:
    return [
        Metric("example_f1", "F1", partial(merits, task), ends=SHARE),
        _counted("f1", "macro F1", "multilabel_f1_score", task),
        _counted("map", "mean average precision", "multilabel_average_precision", task),
    ]


def _of_numbers(task: Regression) -> list[Metric]:
    return [
        Metric("r2", "R²", partial(merits, task), ends=(-math.inf, 1.0)),
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
    return -task.loss(logits.double(), target, reduction="none")


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


def _function(name: str) -> Callable[..., Any]:
    try:
        from torchmetrics.functional import classification
    except ImportError as error:
        raise ImportError(
            "Metrics that are no means over samples are torchmetrics'. Found none installed. Run "
            '`pip install "equivox[bench]"`.'
        ) from error

    def quietly(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():  # a class that a resample lacks is left out of its mean
            warnings.simplefilter("ignore", UserWarning)
            return getattr(classification, name)(*arguments, **options)

    return quietly


def _truth(task: Task, target: Tensor) -> Tensor:
    if isinstance(task, MultiLabel):
        return (target > 0.5).long()
    return class_numbers(target) if isinstance(task, Classification) else target
