"""Tasks: what the logits are for, and how a sample's answer is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


class Task:
    """What a model is trained for. Every method speaks to the data through these few functions."""

    outputs: int | None = None
    monitor: str = "loss"
    """The metric that model selection maximises."""

    def loss(self, logits: Tensor, target: Any, reduction: str = "mean") -> Tensor:
        """The task's loss: a scalar, or (batch,) losses with `reduction="none"`."""
        raise NotImplementedError

    def score(self, logits: Tensor, target: Any) -> Float[Tensor, " batch"]:
        """How well each sample is answered, in [0, 1]: `exp(-loss)`, detached, in float32.

        For cross entropy this is exactly the softmax probability of the true class.
        """
        with torch.no_grad():
            return torch.exp(-self.loss(logits.float(), target, reduction="none"))

    def correct(self, logits: Tensor, target: Any) -> Float[Tensor, " batch"]:
        """How right each sample's prediction is, in [0, 1]."""
        return self.score(logits, target)

    def merit(self, logits: Tensor, target: Any) -> Float[Tensor, " batch"]:
        """What choices on validation data maximise the mean of."""
        return self.correct(logits, target)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Predictions that may be averaged over models."""
        return logits

    def logits(self, probabilities: Tensor) -> Tensor:
        """The inverse of `probabilities`, up to a constant."""
        return probabilities

    def metrics(self) -> Any:
        """A `torchmetrics.MetricCollection` over (logits, target); needs `equivox[bench]`."""
        raise NotImplementedError

    def _outputs(self) -> int:
        if self.outputs is None:
            raise ValueError(
                f"Metrics need the number of classes. Found `{self!r}`. "
                f"Pass `{type(self).__name__}(classes=…)`."
            )
        return self.outputs


def _checked(name: str, count: int | None) -> None:
    if count is not None and count < 1:
        raise ValueError(f"`{name}` should be positive. Found `{name} = {count}`.")


def _same_shape(logits: Tensor, target: Tensor) -> None:
    if logits.shape != target.shape:
        raise ValueError(
            f"Logits and targets should have one shape. Found {tuple(logits.shape)} and "
            f"{tuple(target.shape)}."
        )


def _labels(logits: Tensor, target: Tensor) -> Tensor:
    """The target as class numbers (batch, *space), or as probabilities of the logits' shape."""
    if not isinstance(target, Tensor):
        raise TypeError(f"A target should be a tensor. Found `{type(target).__name__}`.")
    if logits.ndim > 1 and logits.shape[1] == 1:
        raise ValueError(
            "Classes exclude each other, so there are two or more. Found logits of one. Give the "
            "model two outputs, or train for one label: `MultiLabel(1)`."
        )
    if target.is_floating_point() and target.ndim == logits.ndim > 1:
        _same_shape(logits, target)
        return target
    wanted = (logits.shape[0], *logits.shape[2:])
    if logits.ndim < 2 or target.shape != wanted or target.is_floating_point():
        raise ValueError(
            "The target should be class numbers (batch, …) for logits (batch, classes, …). Found a "
            f"target {tuple(target.shape)} of {target.dtype} for logits {tuple(logits.shape)}. "
            "`target.long()` makes integers, `target.squeeze(1)` drops an axis, "
            "`target.argmax(1)` reads one-hot rows."
        )
    return target.long()


def _cross_entropy(logits: Tensor, target: Any, **options: Any) -> Tensor:
    target = _labels(logits, target)
    try:
        return F.cross_entropy(logits, target, **options)
    except IndexError as error:  # raised on the CPU; a GPU stops with a device-side assertion
        ignored = target == options.get("ignore_index", -100)
        bad = ((target < 0) | (target >= logits.shape[1])) & ~ignored
        rows = bad.flatten(1).any(1) if bad.ndim > 1 else bad
        raise ValueError(
            f"Labels should lie in 0 … {logits.shape[1] - 1}, one of {logits.shape[1]} logits. "
            f"Found {target[bad].unique().tolist()[:5]} in rows "
            f"{rows.nonzero().flatten().tolist()[:5]} of the batch."
        ) from error


@dataclass(frozen=True)
class Classification(Task):
    """One class a sample: logits (batch, classes), target (batch,) of class numbers.

    >>> task = Classification(classes=2)
    >>> task.score(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.5000])
    """

    classes: int | None = None
    label_smoothing: float = 0.0
    monitor = "accuracy"

    def __post_init__(self) -> None:
        _checked("classes", self.classes)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` should lie in [0, 1). Found "
                f"`label_smoothing = {self.label_smoothing}`."
            )

    @property
    def outputs(self) -> int | None:  # type: ignore[override]
        return self.classes

    def loss(self, logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        smoothing = self.label_smoothing
        return _cross_entropy(logits, target, reduction=reduction, label_smoothing=smoothing)

    def score(self, logits: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.exp(-_cross_entropy(logits.float(), target, reduction="none"))

    def correct(self, logits: Tensor, target: Tensor) -> Tensor:
        truth = target if target.ndim == 1 else target.argmax(-1)
        return (logits.argmax(-1) == truth).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(-1)

    def logits(self, probabilities: Tensor) -> Tensor:
        return probabilities.clamp(min=1e-12).log()

    def metrics(self) -> Any:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

        k = self._outputs()
        return MetricCollection(
            {"accuracy": MulticlassAccuracy(k, average="micro"), "f1": MulticlassF1Score(k)}
        )


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of labels a sample: logits and 0/1 targets (batch, labels).

    The loss is binary cross entropy averaged over the labels; `correct` is the example-wise F1.
    """

    classes: int | None = None
    monitor = "f1"

    def __post_init__(self) -> None:
        _checked("classes", self.classes)

    @property
    def outputs(self) -> int | None:  # type: ignore[override]
        return self.classes

    def loss(self, logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        _same_shape(logits, target)
        target = target.to(logits.dtype)
        if reduction == "mean":
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)

    def correct(self, logits: Tensor, target: Tensor) -> Tensor:
        said, true = logits > 0, target > 0.5
        both, either = (said & true).sum(-1), said.sum(-1) + true.sum(-1)
        return torch.where(either == 0, 1.0, 2 * both / either.clamp(min=1))

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()

    def logits(self, probabilities: Tensor) -> Tensor:
        return probabilities.logit(eps=1e-6)

    def metrics(self) -> Any:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score
        from torchmetrics.wrappers import LambdaInputTransformer

        k = self._outputs()
        metrics = {"f1": MultilabelF1Score(k), "map": MultilabelAveragePrecision(k)}
        # torchmetrics takes logits for probabilities where all of a batch lie in [0, 1].
        return MetricCollection(
            {
                name: LambdaInputTransformer(metric, self.probabilities, Tensor.long)
                for name, metric in metrics.items()
            },
            compute_groups=False,
        )


@dataclass(frozen=True)
class Regression(Task):
    """Numbers: logits (batch, outputs) or (batch,), target of the same shape; squared error."""

    outputs: int | None = 1
    monitor = "r2"

    def __post_init__(self) -> None:
        _checked("outputs", self.outputs)

    def loss(self, logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        if logits.shape == (*target.shape, 1):
            logits = logits.squeeze(-1)
        _same_shape(logits, target)
        errors = F.mse_loss(logits, target.to(logits.dtype), reduction="none")
        if reduction == "mean":
            return errors.mean()
        return errors.flatten(1).mean(-1) if errors.ndim > 1 else errors

    def merit(self, logits: Tensor, target: Tensor) -> Tensor:
        return -self.loss(logits, target, reduction="none")  # exp(-error) is flat far away

    def metrics(self) -> Any:
        from torchmetrics import MetricCollection
        from torchmetrics.regression import MeanAbsoluteError, R2Score
        from torchmetrics.wrappers import LambdaInputTransformer

        if self.outputs != 1:
            return MetricCollection({"r2": R2Score(), "mae": MeanAbsoluteError()})
        metrics = {"r2": R2Score(), "mae": MeanAbsoluteError()}
        flat = torch.flatten  # (batch, 1) is compared with (batch,)
        return MetricCollection(
            {name: LambdaInputTransformer(m, flat, flat) for name, m in metrics.items()}
        )


@dataclass(frozen=True)
class Dense(Task):
    """A class at every position: logits (batch, classes, *space), target (batch, *space).

    Positions with `ignore_index` do not count. The mean loss is over positions, as in
    `F.cross_entropy`; a sample's loss is the mean over its own positions.
    """

    classes: int | None = None
    ignore_index: int = 255
    monitor = "miou"

    def __post_init__(self) -> None:
        _checked("classes", self.classes)

    @property
    def outputs(self) -> int | None:  # type: ignore[override]
        return self.classes

    def loss(self, logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        each = _cross_entropy(logits, target, reduction="none", ignore_index=self.ignore_index)
        valid = target != self.ignore_index
        if reduction == "mean":
            return each.sum() / valid.sum().clamp(min=1)
        return each.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)

    def correct(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = target != self.ignore_index
        right = (logits.argmax(1) == target) & valid
        return right.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(1)

    def logits(self, probabilities: Tensor) -> Tensor:
        return probabilities.clamp(min=1e-12).log()

    def metrics(self) -> Any:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        k, ignored = self._outputs(), self.ignore_index
        return MetricCollection(
            {
                "miou": MulticlassJaccardIndex(k, ignore_index=ignored),
                "accuracy": MulticlassAccuracy(k, average="micro", ignore_index=ignored),
            },
            compute_groups=False,
        )
