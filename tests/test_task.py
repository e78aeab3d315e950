"""Tasks: losses, scores, predictions, metrics, and the targets they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.task import Classification, Dense, MultiLabel, Regression, Task


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


CASES: list[tuple[Task, Tensor, Tensor]] = [
    (Classification(), logits(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])),
    (Classification(label_smoothing=0.1), logits(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])),
    (Classification(), logits(6, 3), logits(6, 3, seed=1).softmax(-1)),
    (MultiLabel(), logits(6, 4), logits(6, 4, seed=1) > 0),
    (Regression(), logits(6, 1), logits(6, seed=1)),
    (Regression(), logits(6), logits(6, seed=1)),
    (Regression(outputs=2), logits(6, 2), logits(6, 2, seed=1)),
    (Dense(), logits(6, 3, 4, 5), logits(6, 4, 5, seed=1).gt(0).long()),
]


@pytest.mark.parametrize(("task", "x", "target"), CASES)
def test_the_mean_is_that_of_the_samples(task: Task, x: Tensor, target: Tensor) -> None:
    each = task.loss(x, target, reduction="none")
    assert each.shape == (6,)
    torch.testing.assert_close(each.mean(), task.loss(x, target))


@pytest.mark.parametrize(("task", "x", "target"), CASES)
def test_scores_and_correctness_lie_between_zero_and_one(
    task: Task, x: Tensor, target: Tensor
) -> None:
    x = x.bfloat16().requires_grad_()
    for rows in (task.score(x, target), task.correct(x.detach(), target)):
        assert rows.shape == (6,)
        assert rows.dtype == torch.float32
        assert not rows.requires_grad
        assert ((rows >= 0) & (rows <= 1)).all()


@pytest.mark.parametrize(
    ("task", "x", "target"), [case for case in CASES if case[0] != Classification(None, 0.1)]
)
def test_the_score_is_the_exponential_of_the_loss(task: Task, x: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(task.score(x, target), torch.exp(-task.loss(x, target, "none")))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_score_of_a_class_is_its_probability(smoothing: float) -> None:
    x, target = logits(5, 3), torch.tensor([2, 0, 1, 1, 0])
    found = Classification(label_smoothing=smoothing).score(x, target)
    torch.testing.assert_close(found, x.softmax(-1)[torch.arange(5), target])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_any_integers_are_class_numbers(dtype: torch.dtype) -> None:
    x, target = logits(4, 2), torch.tensor([0, 1, 1, 0])
    assert Classification().loss(x, target.to(dtype)) == F.cross_entropy(x, target)


def test_correct_predictions() -> None:
    x, target = torch.tensor([[2.0, 1], [0, 1], [3, 0]]), torch.tensor([0, 0, 0])
    assert Classification().correct(x, target).tolist() == [1, 0, 1]
    assert Classification().correct(x, F.one_hot(target, 2).float()).tolist() == [1, 0, 1]


def test_the_loss_of_labels_by_hand() -> None:
    x, target = torch.zeros(2, 3), torch.tensor([[1, 0, 1], [0, 0, 0]])
    assert MultiLabel().loss(x, target).item() == pytest.approx(math.log(2))
    assert MultiLabel().score(x, target).tolist() == pytest.approx([0.5, 0.5])


def test_labels_are_judged_by_their_f1() -> None:
    x = torch.tensor([[1.0, 1, -1], [1, -1, -1], [-1, -1, -1]])
    target = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert MultiLabel().correct(x, target).tolist() == [0.5, 1, 1]


def test_regression_by_hand() -> None:
    x, target = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 4], [3, 4]])
    assert Regression(outputs=2).loss(x, target, "none").tolist() == [2, 0]
    assert Regression().loss(x[:, :1], torch.tensor([0, 3])).item() == 0.5


def test_dense_positions_that_do_not_count() -> None:
    x = logits(2, 3, 4)
    target = torch.tensor([[0, 1, 255, 255], [2, 1, 0, 2]])
    task = Dense()
    torch.testing.assert_close(task.loss(x, target), F.cross_entropy(x, target, ignore_index=255))
    expected = torch.stack(
        [F.cross_entropy(x[:1, :, :2], target[:1, :2]), F.cross_entropy(x[1:], target[1:])]
    )
    torch.testing.assert_close(task.loss(x, target, "none"), expected)
    right = x.argmax(1)
    right[:, 1:] = 255
    assert task.correct(x, right).tolist() == [1, 1]
    nothing = torch.full((2, 4), 255, dtype=torch.uint8)
    assert task.loss(x, nothing) == 0
    assert task.correct(x, nothing).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("task", "shape"), [(Classification(), (4, 3)), (MultiLabel(), (4, 3)), (Dense(), (4, 3, 2))]
)
def test_predictions_that_may_be_averaged(task: Task, shape: tuple[int, ...]) -> None:
    probabilities = task.probabilities(logits(*shape).half())
    assert probabilities.dtype == torch.float32
    again = task.probabilities(task.logits(probabilities))
    torch.testing.assert_close(again, probabilities)
    x = logits(*shape)
    assert Regression().logits(Regression().probabilities(x)) is x


# ── targets that are refused ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_out_of_range_is_named_with_its_row(smoothing: float) -> None:
    target = torch.tensor([0, 7, 1, -1])
    with pytest.raises(
        ValueError, match=r"lie in 0 … 2, one of 3 logits\. Found \[-1, 7\] in rows \[1, 3\]"
    ):
        Classification(label_smoothing=smoothing).loss(logits(4, 3), target)


@pytest.mark.parametrize("target", [torch.tensor([False, True]), torch.ones(2, 1)])
def test_classes_need_two_logits(target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"two or more\. Found logits of one.*MultiLabel\(1\)"):
        Classification().loss(logits(2, 1), target)


def test_a_dense_label_out_of_range() -> None:
    target = torch.zeros(3, 2, 2, dtype=torch.uint8)
    target[1, 0, 1], target[2] = 9, 255
    with pytest.raises(ValueError, match=r"Found \[9\] in rows \[1\]"):
        Dense().loss(logits(3, 4, 2, 2), target)


@pytest.mark.parametrize(
    ("x", "target"),
    [
        (logits(4, 3), torch.zeros(4, 1, dtype=torch.long)),
        (logits(4, 3), torch.zeros(5, dtype=torch.long)),
        (logits(4, 3), torch.zeros(4)),
        (logits(4), torch.zeros(4, dtype=torch.long)),
    ],
)
def test_targets_that_are_no_class_numbers(x: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"should be class numbers \(batch, …\)"):
        Classification().loss(x, target)


@pytest.mark.parametrize(
    ("task", "x", "target"),
    [
        (Classification(), logits(4, 3), torch.zeros(4, 2)),
        (MultiLabel(), logits(4, 3), torch.zeros(4)),
        (Regression(), logits(4, 1), torch.zeros(5)),
        (Regression(), logits(4), torch.zeros(4, 1)),
    ],
)
def test_shapes_that_differ(task: Task, x: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"should have one shape\. Found \(4"):
        task.loss(x, target)


def test_a_dense_target_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"target \(2, 5\) of torch\.int64 for logits \(2, 3, 4\)"):
        Dense().loss(logits(2, 3, 4), torch.zeros(2, 5, dtype=torch.long))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Classification(classes=0), "`classes` should be positive"),
        (lambda: MultiLabel(classes=-1), "`classes` should be positive"),
        (lambda: Dense(classes=0), "`classes` should be positive"),
        (lambda: Regression(outputs=0), "`outputs` should be positive"),
        (lambda: Classification(label_smoothing=1.0), r"`label_smoothing` should lie in \[0, 1\)"),
    ],
)
def test_arguments(build: Callable[[], Task], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build()


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────


def computed(task: Task, *batches: tuple[Tensor, Tensor]) -> dict[str, Any]:
    pytest.importorskip("torchmetrics")
    metrics = task.metrics()
    for x, target in batches:
        metrics.update(x, target)
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert task.monitor in found
    return found


def test_metrics_of_classification() -> None:
    x = torch.tensor([[2.0, 0], [0, 2], [2, 0], [2, 0]])
    found = computed(Classification(classes=2), (x, torch.tensor([0, 1, 1, 0])))
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["f1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_metrics_of_labels_take_logits_as_logits() -> None:
    """Logits that all lie in [0, 1] say yes to every label."""
    x = torch.tensor([[0.1, 0.3], [0.2, 0.4]])
    target = torch.tensor([[1, 1], [1, 1]])
    assert computed(MultiLabel(classes=2), (x, target))["f1"] == 1
    wide = torch.tensor([[3.0, -2.0], [-1.0, 2.0]])
    found = computed(MultiLabel(classes=2), (x, target.float()), (wide, (wide > 0).float()))
    assert found["f1"] == 1


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_metrics_of_regression(shape: tuple[int, ...]) -> None:
    target = torch.tensor([1.0, 2, 3, 4])
    found = computed(Regression(), ((target + 0.5).view(shape), target))
    assert found["mae"] == pytest.approx(0.5)
    assert found["r2"] == pytest.approx(1 - 4 * 0.25 / 5)
    both = torch.stack([target, target], 1)
    assert computed(Regression(outputs=2), (both, both))["r2"] == 1


def test_metrics_of_dense_prediction_ignore_what_does_not_count() -> None:
    target = torch.tensor([[0, 1, 2, 255], [2, 2, 255, 0]])
    x = F.one_hot(target.clamp(max=2), 3).movedim(-1, 1).float()
    assert computed(Dense(classes=3), (x, target)) == {"miou": 1, "accuracy": 1}


@pytest.mark.parametrize("task", [Classification(), MultiLabel(), Dense()])
def test_metrics_need_the_number_of_classes(task: Task) -> None:
    pytest.importorskip("torchmetrics")
    with pytest.raises(ValueError, match=r"Pass `\w+\(classes=…\)`"):
        task.metrics()


def test_a_task_of_ones_own_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError):
        Task().loss(logits(1), logits(1))
    x = logits(2, 2)
    assert Task().logits(Task().probabilities(x)) is x
