from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from equivox.diagnosis.answers import BLANKINGS, Answers
from equivox.diagnosis.headroom import chance, headroom, late_fusion, most_frequent
from equivox.task import Classification, Dense, MultiLabel, Regression, Task


def answers(task: Task, target: Tensor, whole: Tensor) -> Answers:
    rows = torch.ones(len(target), dtype=torch.bool)
    said = {frozenset("ab"): whole}
    how = dict.fromkeys(BLANKINGS, said)
    return Answers(task, ("a", "b"), target, rows, how, {}, {}, rows, {})


def says(labels: list[int], sure: float = 5.0) -> Tensor:
    return nn.functional.one_hot(torch.tensor(labels), 2) * sure


TARGET = torch.tensor([0] * 6 + [1] * 4)
JOINT = says([0] * 10)
ALONE = {"a": says([0] * 8 + [1] * 2, 9.0), "b": says([1] * 10, 1.0)}


def test_by_hand() -> None:
    found = headroom(answers(Classification(2), TARGET, JOINT), ALONE, "a")
    assert found.chance == pytest.approx(0.6)
    assert found.joint.value == pytest.approx(0.6)
    assert [x.value for x in found.alone.values()] == pytest.approx([0.8, 0.4])
    assert found.late_fusion.value == pytest.approx(0.8)  # `a` is surer
    assert found.gain.value == found.single_gain.value == pytest.approx(0.2)
    assert found.to_json()["alarm"] is found.alarm


def test_the_alarm_needs_the_whole_interval() -> None:
    target = torch.zeros(400, dtype=torch.long)
    wrong, right = says([1] * 400), says([0] * 400)
    same = headroom(answers(Classification(2), target, right), {"a": right, "b": right}, "a")
    assert not same.alarm and same.gain.value == 0
    better = headroom(answers(Classification(2), target, wrong), {"a": right, "b": right}, "a")
    assert better.alarm and better.gain.low == 1
    single = headroom(answers(Classification(2), target, wrong), {"a": right, "b": wrong * 2}, "a")
    assert single.alarm and single.gain.value == 0 and single.single_gain.value == 1


def test_late_fusion_averages_probabilities() -> None:
    mean = late_fusion(Classification(2), ALONE).softmax(1)
    wanted = (ALONE["a"].softmax(1) + ALONE["b"].softmax(1)) / 2
    torch.testing.assert_close(mean, wanted)
    numbers = {"a": torch.tensor([[1.0]]), "b": torch.tensor([[3.0]])}
    assert float(late_fusion(Regression(), numbers)) == 2


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
    assert chance(answers(Dense(2), nothing, whole)) == 0
