"""Opinions, who teaches, and how much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equivox import Classification, Dense, MultiLabel, Regression
from equivox.functional.distillation import distillation_weight, opinion_of, taught


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


CASES: dict[str, tuple[Any, tuple[int, ...], Tensor]] = {
    "classes": (Classification(), (4, 3), torch.tensor([0, 1, 2, 1])),
    "labels": (MultiLabel(), (4, 3), (draw(9, 4, 3) > 0).long()),
    "positions": (Dense(), (4, 3, 2), torch.tensor([[0, 1], [2, 255], [255, 255], [1, 1]])),
    "numbers": (Regression(3), (4, 3), draw(9, 4, 3)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("probabilities", [False, True])
@given(seed=st.integers(0, 99))
def test_axis_one_is_all_that_a_decision_adds(case: str, probabilities: bool, seed: int) -> None:
    task, shape, target = CASES[case]
    opinion = opinion_of(draw(seed, *shape), target, task, probabilities=probabilities)
    decisions = opinion.truth.shape
    assert opinion.right.shape == decisions
    assert opinion.representation.select(1, 0).shape == decisions
    assert bool(((opinion.truth >= 0) & (opinion.truth <= 1)).all())
    if opinion.log_p is not None:
        assert opinion.log_p.select(1, 0).shape == decisions


@pytest.mark.parametrize("case", CASES)
@given(seed=st.integers(0, 99))
def test_the_weight_does_not_know_who_is_first(case: str, seed: int) -> None:
    task, shape, target = CASES[case]
    a, b = (opinion_of(draw(s, *shape), target, task) for s in (seed, seed + 100))
    weight = distillation_weight(a, b)
    assert torch.equal(weight, distillation_weight(b, a))
    assert bool((distillation_weight(a, a) == 0).all())
    assert bool((weight[~(a.right | b.right)] == 0).all())


def test_probabilities_of_classes_are_their_own_opinion() -> None:
    z, y = draw(0, 4, 3), torch.tensor([0, 1, 2, 1])
    soft = torch.nn.functional.one_hot(y, 3).float()
    one, other = (opinion_of(z, target, Classification()) for target in (y, soft))
    assert torch.equal(one.truth, other.truth)
    assert torch.equal(one.right, other.right)


def test_the_temperature_changes_the_log_probabilities_alone() -> None:
    z, y = draw(0, 4, 3), torch.tensor([0, 1, 2, 1])
    cold, hot = (opinion_of(z, y, Classification(), t, probabilities=True) for t in (1.0, 1e6))
    assert torch.equal(cold.truth, hot.truth)
    assert torch.equal(cold.representation, hot.representation)
    assert hot.log_p is not None
    torch.testing.assert_close(hot.log_p.exp(), torch.full((4, 3), 1 / 3))


@pytest.mark.parametrize("detach", [True, False])
def test_teacher_and_student_are_the_two(detach: bool) -> None:
    a, b = (draw(s, 4, 3).requires_grad_() for s in (0, 1))
    by_a = torch.tensor([True, False, True, False])
    teacher, student = taught(a, b, by_a, detach)
    assert torch.equal(teacher + student, a + b)
    assert torch.equal(teacher[by_a], a[by_a])
    assert teacher.requires_grad is not detach
    student.sum().backward()
    assert a.grad is not None
    assert torch.equal(a.grad[:, 0], (~by_a).float())
