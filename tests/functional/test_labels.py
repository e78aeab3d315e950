"""Targets as class numbers: bins of equal size, questions of every task, one class a sample."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox import Classification, MultiLabel, Regression
from equivox.functional.labels import (
    answers,
    asked,
    binned,
    most_frequent_class,
    quantile_edges,
    single_classes,
)

NONE = torch.empty(1, 1)


@given(seed=st.integers(0, 99), bins=st.integers(2, 6), outputs=st.integers(1, 3))
def test_bins_are_equally_full_and_keep_the_order(seed: int, bins: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(12 * bins, outputs, generator=generator)
    found = binned(target, quantile_edges(target, bins))
    for column, values in zip(found.T, target.T, strict=True):
        assert column.bincount(minlength=bins).tolist() == [12] * bins
        assert (column[values.argsort()].diff() >= 0).all()


@given(seed=st.integers(0, 99))
def test_a_monotone_change_of_the_target_leaves_its_bins(seed: int) -> None:
    target = torch.rand(40, generator=torch.Generator().manual_seed(seed))
    before, after = (binned(y, quantile_edges(y, 3)) for y in (target, 5 * target - 2))
    assert torch.equal(before, after)


def test_questions_of_every_task() -> None:
    assert [asked(t, 3, 8) for t in (Classification(), MultiLabel(), Regression(3))] == [
        (1, 3),
        (3, 2),
        (3, 8),
    ]
    classes = torch.tensor([2, 0])
    assert answers(Classification(), classes, NONE).tolist() == [[2], [0]]
    soft = torch.tensor([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    assert answers(Classification(), soft, NONE).tolist() == [[2], [0]]
    assert answers(MultiLabel(), torch.tensor([[1.0, 0.0, 1.0]]), NONE).tolist() == [[1, 0, 1]]
    edges = torch.tensor([[0.0], [1.0]])
    assert answers(Regression(2), torch.tensor([[0.5, 0.5]]), edges).tolist() == [[1, 0]]


def test_one_class_a_sample() -> None:
    y = torch.arange(10.0).view(10, 1)
    assert single_classes(Regression(1), y, y, bins=5).bincount().tolist() == [2] * 5
    train = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]])
    target = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0]])
    assert single_classes(MultiLabel(3), target, train).tolist() == [1, 0, 3]
    assert single_classes(Classification(), y[:, 0].long(), y[:, 0].long()).tolist() == [*range(10)]


@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 3)])
def test_ignored_positions_do_not_make_a_class(shape: tuple[int, ...]) -> None:
    target = torch.full((4, 6), 255)
    target[0, :2], target[1, 0], target[2, :3] = 1, 2, torch.tensor([0, 2, 2])
    assert most_frequent_class(target.view(shape), 3).tolist() == [1, 2, 2, 0]
