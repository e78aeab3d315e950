from __future__ import annotations

import math

import pytest
import torch

from equivox.diagnosis import metric
from equivox.diagnosis.metric import (
    columns,
    estimate,
    merits,
    metric_of,
    resamples,
    value,
    variance,
)
from equivox.task import Classification, Dense, MultiLabel, Regression, Task


def test_the_benchmarks_example_of_accuracy_and_f1() -> None:
    truth, said = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 1, 0])
    logits = torch.nn.functional.one_hot(said, 3).float()
    task = Classification(3)
    assert value(task, logits, truth) == pytest.approx(2 / 3)
    assert float(task.metrics()(logits, truth)["f1"]) == pytest.approx(0.488889, abs=1e-6)


def test_r2_is_the_mean_of_the_merits() -> None:
    g = torch.Generator().manual_seed(0)
    y, said = torch.randn(50, 2, generator=g), torch.randn(50, 2, generator=g)
    errors, spread = (y - said).square().sum(0), (y - y.mean(0)).square().sum(0)
    wanted = float((1 - errors / spread).mean())
    assert value(Regression(2), said, y) == pytest.approx(wanted, abs=1e-6)
    one = merits(Regression(), said[:, :1], y[:, 0])
    assert torch.equal(one, merits(Regression(), said[:, 0], y[:, :1]))
    assert one.dtype == torch.float64


def test_other_tasks_are_means_of_correct() -> None:
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert value(MultiLabel(2), torch.tensor([[1.0, -1.0], [1.0, -1.0]]), labels) == pytest.approx(
        (1 + 2 / 3) / 2
    )
    target = torch.tensor([[0, 1, 255], [1, 1, 1]])
    logits = torch.nn.functional.one_hot(torch.zeros(2, 3, dtype=torch.long), 2).movedim(-1, 1)
    assert value(Dense(2), logits.float(), target) == 0.25


def test_a_constant_has_no_r2() -> None:
    assert variance(columns(torch.ones(5))).isnan().all()
    assert math.isnan(value(Regression(), torch.zeros(5, 1), torch.ones(5, 1)))
    assert len(merits(Regression(), torch.zeros(0, 1), torch.zeros(0, 1))) == 0


def test_r2_is_over_the_outputs_that_vary() -> None:
    g = torch.Generator().manual_seed(0)
    y, said = torch.randn(50, 2, generator=g), torch.randn(50, 2, generator=g)
    fixed = torch.stack([y[:, 0], torch.full((50,), 0.1)], 1)
    assert value(Regression(2), said, fixed) == value(Regression(), said[:, 0], y[:, 0])
    fixed[3, 1] = torch.nan  # what is broken is not left out
    assert math.isnan(value(Regression(2), said, fixed))


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_interval_of_r2_holds_the_chance_of_the_targets(outputs: int) -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.randn(400, outputs, generator=g)
    said = 0.5 * y + 0.3 * torch.randn(400, outputs, generator=g)
    r2 = metric_of(Regression(outputs))
    found = r2.estimate(r2.parts(said, y))
    drawn = [torch.randint(400, (400,), generator=g) for _ in range(400)]
    spread = torch.tensor([value(Regression(outputs), said[rows], y[rows]) for rows in drawn]).std()
    assert found.value == pytest.approx(value(Regression(outputs), said, y))
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(spread), rel=0.2)


def test_a_sample_without_a_position_that_counts_is_not_judged() -> None:
    task, target = Dense(2), torch.tensor([[0, 1, 255], [255, 255, 255], [1, 1, 1]])
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 0]] * 3), 2).movedim(-1, 1).float()
    kept = [0, 2]
    for name in ("sample_accuracy", "loss"):
        found = metric_of(task, name)
        assert found.value(logits, target) == found.value(logits[kept], target[kept])
    assert merits(task, logits, target).tolist() == pytest.approx([1, 1 / 3])


def test_a_class_that_does_not_occur_does_not_count() -> None:
    pytest.importorskip("torchmetrics")
    truth, said = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 1, 1])
    logits = 5.0 * torch.nn.functional.one_hot(said, 3)
    task = Classification(3)
    assert metric_of(task, "balanced_accuracy").value(logits, truth) == pytest.approx(0.75)
    assert metric_of(task, "auroc").value(logits, truth) == pytest.approx((0.75 + 1) / 2)
    assert math.isnan(metric_of(task, "auroc").value(logits[:2], truth[:2]))  # nothing to rank
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    assert metric_of(MultiLabel(3), "map").value(4.0 * labels - 2, labels) == pytest.approx(1)


def test_the_interval_is_that_of_the_binomial() -> None:
    rows = (torch.arange(400) < 240).double()
    found = estimate(rows)
    width = 1.96 * math.sqrt(0.6 * 0.4 / 400)
    assert found.value == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6 - width, abs=0.01)
    assert found.high == pytest.approx(0.6 + width, abs=0.01)
    assert found.half == pytest.approx(width, abs=0.012)
    assert found == estimate(rows) and found != estimate(rows, seed=1)


def test_few_and_undefined_rows() -> None:
    assert all(math.isnan(x) for x in estimate(torch.zeros(0)).to_json().values())
    assert list(estimate(torch.tensor([3.0])).to_json().values()) == [3.0, 3.0, 3.0]
    found = estimate(torch.tensor([1.0, torch.nan]))
    assert math.isnan(found.low) and math.isnan(found.value)
    endless = estimate(torch.tensor([1.0, -torch.inf]))
    assert endless.value == -math.inf and math.isnan(endless.high)


def test_many_rows_are_taken_for_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.rand(900, generator=torch.Generator().manual_seed(0))
    drawn = estimate(rows)
    monkeypatch.setattr(metric, "MANY", 899)
    normal = estimate(rows)
    assert normal.half == pytest.approx(1.96 * float(rows.std(correction=0)) / 30, rel=1e-5)
    assert normal.half == pytest.approx(drawn.half, rel=0.1)


def test_resamples_are_with_replacement() -> None:
    drawn = resamples(50, 0)
    assert drawn.shape == (1000, 50) and (drawn.sum(1) == 50).all()
    assert float((drawn == 0).float().mean()) == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)


@pytest.mark.parametrize(
    ("task", "name", "room"),
    [
        (Classification(3), "accuracy", (-0.5, 0.5)),
        (Classification(3), "auroc", (-0.5, 0.5)),
        (MultiLabel(3), "example_f1", (-0.5, 0.5)),
        (Regression(), "r2", (-math.inf, 0.5)),
        (Dense(2), "sample_accuracy", (-0.5, 0.5)),
        (Classification(3), "loss", (-math.inf, math.inf)),
    ],
)
def test_a_metric_has_room_within_its_ends(
    task: Task, name: str, room: tuple[float, float]
) -> None:
    assert metric_of(task, name).room(0.5) == room
