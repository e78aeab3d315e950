from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from equivox.diagnosis.answers import BLANKINGS, Answers
from equivox.diagnosis.headroom import chance, headroom, most_frequent
from equivox.diagnosis.known_metrics import metrics_of
from equivox.diagnosis.late_fusion import LateFusion
from equivox.diagnosis.metric import metric_of
from equivox.task import Classification, Dense, MultiLabel, Regression, Task


def answers(task: Task, target: Tensor, whole: Tensor) -> Answers:
    rows = torch.ones(len(target), dtype=torch.bool)
    said = {frozenset("ab"): whole}
    how = dict.fromkeys(BLANKINGS, said)
    return Answers(task, ("a", "b"), target, rows, how, {}, {}, rows, {})


SUM = LateFusion({"a": torch.ones(()), "b": torch.ones(())}, torch.zeros(2))


def says(labels: list[int], sure: float = 5.0) -> Tensor:
    return nn.functional.one_hot(torch.tensor(labels), 2) * sure


TARGET = torch.tensor([0] * 6 + [1] * 4)
JOINT = says([0] * 10)
ALONE = {"a": says([0] * 8 + [1] * 2, 9.0), "b": says([1] * 10, 1.0)}


def test_by_hand() -> None:
    found = headroom(answers(Classification(2), TARGET, JOINT), ALONE, "a", SUM)
    assert found.chance == pytest.approx(0.6)
    assert found.joint.value == pytest.approx(0.6)
    assert [x.value for x in found.alone.values()] == pytest.approx([0.8, 0.4])
    assert found.late_fusion.value == pytest.approx(0.8)  # `a` is surer
    assert found.gain.value == found.single_gain.value == pytest.approx(0.2)
    assert found.to_json()["alarm"] is found.alarm


def test_the_alarm_needs_the_whole_interval() -> None:
    target = torch.zeros(400, dtype=torch.long)
    wrong, right = says([1] * 400), says([0] * 400)
    same = headroom(answers(Classification(2), target, right), {"a": right, "b": right}, "a", SUM)
    assert not same.alarm and same.gain.value == 0
    better = headroom(answers(Classification(2), target, wrong), {"a": right, "b": right}, "a", SUM)
    assert better.alarm and better.gain.low == 1
    mixed = {"a": right, "b": wrong * 2}
    single = headroom(answers(Classification(2), target, wrong), mixed, "a", SUM)
    assert single.alarm and single.gain.value == 0 and single.single_gain.value == 1


def test_chance_is_the_best_constant_answer() -> None:
    assert chance(answers(Classification(2), TARGET, JOINT)) == pytest.approx(0.6)
    soft = nn.functional.one_hot(TARGET, 2).double()
    assert chance(answers(Classification(2), soft, JOINT)) == pytest.approx(0.6)
    assert chance(answers(Regression(), torch.randn(10, 1), torch.zeros(10, 1))) == 0


def test_chance_of_rare_labels_says_the_most_frequent_ones() -> None:
    labels = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]).float()
    found = chance(answers(MultiLabel(3), labels, torch.zeros(5, 3)))
    # One label is right for two of five; the two most frequent give 2/3 for four of five, all
    # three 1/2 for everyone; none of them is frequent enough for "each as it mostly is".
    assert found == pytest.approx(max(0.4, 4 / 5 * 2 / 3, 0.5))
    assert [(z > 0).sum().item() for z in most_frequent(labels.mean(0))] == [0, 1, 2, 3]


def test_chance_of_positions_counts_those_that_count() -> None:
    target = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1]])
    whole = torch.zeros(2, 2, 4)
    assert chance(answers(Dense(2), target, whole)) == pytest.approx((0.75 + 0.5) / 2)
    assert chance(answers(Dense(2, ignore_index=0), target, whole)) == 1
    nothing = torch.full((2, 4), 255)
    assert math.isnan(chance(answers(Dense(2), nothing, whole)))


def test_chance_of_every_metric_is_that_of_an_answer_that_does_not_look() -> None:
    known = answers(Classification(3), torch.tensor([0] * 6 + [1] * 3 + [2]), torch.zeros(10, 3))
    found = {name: chance(known, metric) for name, metric in metrics_of(known.task).items()}
    share = torch.tensor([0.6, 0.3, 0.1])
    assert found == {
        "accuracy": pytest.approx(0.6),
        "balanced_accuracy": pytest.approx(1 / 3),
        "f1": pytest.approx(2 * 0.6 / 1.6 / 3),
        "auroc": pytest.approx(0.5),
        "loss": pytest.approx(float((share * share.log()).sum()), abs=1e-6),
    }
    y = torch.tensor([[0.0], [0.0], [0.0], [4.0]])
    numbers = answers(Regression(), y, torch.zeros(4, 1))
    assert chance(numbers, metric_of(numbers.task, "mae")) == -1  # the median; the mean has -1.5
    assert chance(numbers, metric_of(numbers.task, "loss")) == -3  # the mean


def test_a_metric_that_is_no_mean_is_compared_on_the_same_resamples() -> None:
    target = torch.arange(300) % 3
    right = nn.functional.one_hot(target, 3) * 5.0
    wrong = right.clone()
    wrong[:30] = wrong[:30].roll(1, 1)
    known = answers(Classification(3), target, wrong)
    late = LateFusion({"a": torch.ones(()), "b": torch.zeros(())}, torch.zeros(3))
    f1 = metric_of(known.task, "f1")
    found = headroom(known, {"a": right, "b": wrong}, "a", late, f1)
    assert found.gain.value == pytest.approx(found.late_fusion.value - found.joint.value)
    assert found.gain.value == pytest.approx(0.1, abs=0.01) and found.gain.low > 0.06
    same = headroom(known, {"a": wrong, "b": wrong}, "a", late, f1)
    assert (same.gain.value, same.gain.low, same.gain.high) == (0, 0, 0)
