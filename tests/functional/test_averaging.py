"""Means over modalities, by given weights and by certainty, and totals over rows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import equivox as ev
from equivox.functional.averaging import entropy_weights, row_totals, weighted_mean


def test_entropy_weights_by_hand() -> None:
    z = {"a": torch.tensor([[2.0, 0.0]]), "v": torch.tensor([[0.0, 0.0]])}
    weights = entropy_weights(z, ev.Classification())
    assert float(weights["a"]) == pytest.approx(0.581227, abs=1e-6)
    assert float(weights["v"]) == pytest.approx(0.418773, abs=1e-6)


def test_weights_over_the_batch_by_hand() -> None:
    z = {
        "a": torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
        "v": torch.tensor([[0.0, 0.0], [0.5, 0.0]]),
    }
    weights = entropy_weights(z, ev.Classification(), over_batch=True)
    assert float(weights["a"]) == pytest.approx(0.600718, abs=1e-6)
    assert float(weights["v"]) == pytest.approx(0.399282, abs=1e-6)


def test_label_weights_are_binary_entropies() -> None:
    weights = entropy_weights(
        {"a": torch.tensor([[0.0, 0.0]]), "v": torch.tensor([[50.0, 0.0]])}, ev.MultiLabel()
    )
    halves = torch.tensor([-math.log(2), -math.log(2) / 2]).softmax(0)
    torch.testing.assert_close(torch.stack([weights["a"], weights["v"]]).flatten(), halves)


@given(seed=st.integers(0, 99), count=st.integers(1, 4), over_batch=st.booleans())
def test_certainty_weights_add_up_whatever_the_order(
    seed: int, count: int, over_batch: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    z = {f"m{i}": 3 * torch.randn(5, 3, generator=draw) for i in range(count)}
    for task in (ev.Classification(), ev.MultiLabel()):
        weights = entropy_weights(z, task, over_batch)
        total = torch.stack([*weights.values()]).sum(0)
        torch.testing.assert_close(total, torch.ones_like(total))
        turned = entropy_weights(dict(reversed(z.items())), task, over_batch)
        for m, w in weights.items():
            torch.testing.assert_close(turned[m], w)


def test_a_weighted_mean_knows_neither_scale_nor_who_is_away() -> None:
    z = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 6.0])}
    expected = torch.tensor([2.5, 5.0])
    for weights in ({"a": 1.0, "b": 3.0}, {"b": 0.6, "c": 7.0, "a": 0.2}):
        torch.testing.assert_close(weighted_mean(z, weights), expected)
    assert torch.equal(weighted_mean({"b": z["b"]}, {"a": 1.0, "b": 3.0}), z["b"])


def test_totals_of_parts_are_those_of_the_whole() -> None:
    x = torch.arange(12.0).view(6, 2)
    total, count = row_totals([x[:1], x[1:4], x[4:]])
    assert torch.equal(total, x.sum(0)) and count == 6
