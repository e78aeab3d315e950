from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import equivox as ev
from equivox.diagnosis.answers import BLANKINGS, Answers
from equivox.diagnosis.hurt import MOST_CASES, Case, cases, class_names, classes, hurt, varied
from equivox.task import Classification, Dense, MultiLabel, Regression, Task


def answers(task: Task, target: Tensor, whole: Tensor) -> Answers:
    rows = len(target)
    there = torch.ones(rows, dtype=torch.bool)
    logits = {frozenset("ab"): whole}
    return Answers(
        task,
        ("a", "b"),
        target,
        torch.arange(rows) + 100,
        dict.fromkeys(BLANKINGS, logits),
        {},
        {},
        there,
        {},
    )


def saying(classes_: list[int], sure: list[float] | None = None) -> Tensor:
    """Logits of these of two classes."""
    scale = torch.tensor(sure or [1.0] * len(classes_))
    return torch.nn.functional.one_hot(torch.tensor(classes_), 2) * scale[:, None]


TARGET = torch.tensor([0, 0, 0, 1])
FOUND = answers(Classification(2), TARGET, saying([0, 1, 1, 1]))
ALONE = {"a": saying([0, 1, 1, 1]), "b": saying([1, 0, 0, 0], [1.0, 2.0, 3.0, 1.0])}


def test_by_hand() -> None:
    found = hurt(FOUND, ALONE, "b")
    assert found.share.value == 0.5
    worst, other = found.classes
    assert (worst.number, worst.samples, other.number, other.samples) == (0, 3, 1, 1)
    assert worst.network.value == worst.alone["a"].value == pytest.approx(1 / 3)
    assert worst.alone["b"].value == worst.missed.value == pytest.approx(2 / 3)
    assert other.missed.value == 0 and other.network.value == 1
    assert other.network.low < 1 and found.share.high < 1  # one sample, and four, are not certain


def test_cases_are_the_most_confident_first() -> None:
    first, second = cases(FOUND, ALONE["b"])
    assert (first.index, second.index) == (102, 101)
    assert (first.target, first.network, first.modality) == (0, 1, 0)
    assert first.modality_confidence == pytest.approx(0.952574, abs=1e-6)  # sigmoid(3)
    assert first.network_confidence == pytest.approx(0.731059, abs=1e-6)
    assert first.excess is None


def test_a_modality_that_the_network_follows_hurts_nobody() -> None:
    found = hurt(FOUND, ALONE, "a")
    assert found.share.value == 0 and found.cases == ()
    assert all(c.missed.value == 0 for c in found.classes)


def test_at_most_so_many_cases() -> None:
    rows = 50
    target = torch.zeros(rows, dtype=torch.long)
    wrong, right = saying([1] * rows), saying([0] * rows)
    found = cases(answers(Classification(2), target, wrong), right)
    assert len(found) == MOST_CASES
    assert [c.index for c in found] == list(range(100, 124))  # ties in the order of the samples


def test_the_order_of_samples_does_not_matter() -> None:
    order = torch.tensor([2, 0, 3, 1])
    other = hurt(FOUND.rows(order), {m: z[order] for m, z in ALONE.items()}, "b")
    assert other.cases == hurt(FOUND, ALONE, "b").cases
    assert [c.missed.value for c in other.classes] == [
        c.missed.value for c in hurt(FOUND, ALONE, "b").classes
    ]


def test_regression_by_hand() -> None:
    target = torch.tensor([0.0, 1.0, 2.0])
    whole, alone = torch.tensor([[1.0], [4.0], [2.0]]), torch.tensor([[0.0], [2.0], [0.0]])
    found = hurt(answers(Regression(), target, whole), {"a": alone}, "a")
    assert found.classes == () and found.share.value == pytest.approx(2 / 3)
    assert [c.index for c in found.cases] == [101, 100]
    assert [c.excess for c in found.cases] == [8.0, 1.0]
    assert (found.cases[0].target, found.cases[0].network, found.cases[0].modality) == (1, 4, 2)
    assert found.cases[0].network_confidence is None


def test_labels() -> None:
    target = torch.tensor([[1, 0], [1, 1]])
    whole, alone = torch.tensor([[-1.0, -1.0], [1, 1]]), torch.tensor([[1.0, -1.0], [1, -1]])
    found = hurt(answers(MultiLabel(2), target, whole), {"a": alone}, "a")
    assert [(c.number, c.samples, c.missed.value) for c in found.classes] == [
        (0, 2, 0.5),
        (1, 1, 0),
    ]
    assert found.classes[1].alone["a"].value == 0
    (case,) = found.cases
    assert (case.target, case.network, case.modality) == ([0], [], [0])


def test_dense_positions() -> None:
    target = torch.tensor([[0, 0, 1, 255]])
    whole = saying([1, 1, 1, 0]).T[None]
    alone = saying([0, 1, 1, 0]).T[None]
    first, second = classes(answers(Dense(2), target, whole), {"a": alone}, "a")
    assert (first.number, first.missed.value, first.network.value) == (0, 0.5, 0)
    assert (second.number, second.network.value) == (1, 1)
    (case,) = cases(answers(Dense(2), target, whole), alone)
    assert (case.target, case.network, case.modality) == (3, 1, 2)


def test_unknown_modality() -> None:
    with pytest.raises(ValueError, match=r"`modality` should be one of .*Found `bb`"):
        hurt(FOUND, ALONE, "bb")


def balancer(task: Task, outputs: int = 2) -> ev.Balancer:
    encoders = {m: torch.nn.Linear(1, 2) for m in "ab"}
    return ev.Balancer(ev.Multimodal(encoders, ev.Concat({"a": 2, "b": 2}, outputs)), task=task)


class Named:
    """A loader of a data set with class names."""

    def __init__(self, classes: Any) -> None:
        self.dataset = SimpleNamespace(classes=classes)


def test_class_names_are_given_or_those_of_the_data_set() -> None:
    network = balancer(Classification(2))
    assert class_names(network, ["cat", "dog"], Named(["x", "y"])) == ("cat", "dog")
    assert class_names(network, None, Named(["x", "y"])) == ("x", "y")
    assert class_names(network, None, [1, 2, 3]) == ()
    assert class_names(network, (), Named(["x", "y"])) == ()


@pytest.mark.parametrize("classes", [["x", "y", "z"], {"x": 0, "y": 1}, 2])
def test_class_names_that_do_not_fit_are_left_to_the_data_set(classes: Any) -> None:
    assert class_names(balancer(Classification(2)), None, Named(classes)) == ()


@pytest.mark.parametrize("task", [Classification(2), Regression()])
def test_given_class_names_have_to_fit(task: Task) -> None:
    with pytest.raises(ValueError, match=r"Found 3 names\. Pass one a class"):
        class_names(balancer(task), ["a", "b", "c"], [])


def test_varied_takes_turns_between_the_targets() -> None:
    found = [Case(i, target, 0, 0, None, None, None) for i, target in enumerate("xxyxy")]
    assert [case.index for case in varied(found)] == [0, 2, 1, 4, 3]


def test_json_is_plain() -> None:
    found = json.loads(json.dumps(hurt(FOUND, ALONE, "b").to_json()))
    assert found["cases"][0]["index"] == 102
