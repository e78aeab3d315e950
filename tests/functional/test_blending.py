"""Blending: the worked example of G-Blend, its guards and invariances."""

from __future__ import annotations

import pytest
import torch

from equivox.functional.blending import blend, gain_per_overfitting

# (audio, visual, joint), each (training, hold-out)
BEFORE = torch.tensor([[1.20, 1.30], [1.60, 1.70], [1.40, 1.50]])
AFTER = torch.tensor([[0.40, 1.00], [1.00, 1.20], [0.50, 1.00]])
WEIGHTS = torch.tensor([0.022089, 0.920387, 0.057524])


def test_the_worked_example() -> None:
    raw = gain_per_overfitting(BEFORE, AFTER)
    torch.testing.assert_close(raw, torch.tensor([1.2, 50.0, 3.125]), rtol=1e-4, atol=0)
    torch.testing.assert_close(blend(raw), WEIGHTS, rtol=1e-4, atol=0)
    assert (WEIGHTS @ torch.tensor([0.9, 1.1, 0.7])).item() == pytest.approx(1.072572, abs=1e-5)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_a_common_factor_of_the_losses_changes_nothing(factor: float) -> None:
    raw = gain_per_overfitting(factor * BEFORE, factor * AFTER)
    torch.testing.assert_close(raw, gain_per_overfitting(BEFORE, AFTER) / factor, rtol=1e-3, atol=0)
    torch.testing.assert_close(blend(raw), WEIGHTS, rtol=1e-3, atol=0)


def test_permuting_the_losses_permutes_the_weights() -> None:
    order = torch.tensor([2, 0, 1])
    permuted = blend(gain_per_overfitting(BEFORE[order], AFTER[order]))
    torch.testing.assert_close(permuted, blend(gain_per_overfitting(BEFORE, AFTER))[order])


def test_no_overfitting_gives_a_finite_weight() -> None:
    before, after = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.8, 0.8]])
    assert gain_per_overfitting(before, after).item() == pytest.approx(2e7, rel=1e-4)


def test_without_any_gain_the_weights_are_uniform() -> None:
    raw = gain_per_overfitting(AFTER, BEFORE)
    assert (raw == 0).all()
    torch.testing.assert_close(blend(raw), torch.full((3,), 1 / 3))
    assert (gain_per_overfitting(AFTER, BEFORE, sign="abs") > 0).all()


def test_end_values_instead_of_differences() -> None:
    after = torch.tensor([[0.5, 1.0], [1.0, 0.9]])
    found = gain_per_overfitting(torch.zeros(2, 2), after, delta=False)
    torch.testing.assert_close(found, torch.tensor([1.0 / 0.25, 0.9 / 1e-8]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("w_max", [0.4, 0.6, 0.95])
def test_an_upper_limit(w_max: float) -> None:
    capped = blend(torch.tensor([1.2, 50.0, 3.125]), w_max)
    assert capped.max().item() == pytest.approx(min(w_max, 0.920387), rel=1e-4)
    assert capped.sum().item() == pytest.approx(1)
    assert capped.argsort().tolist() == [0, 2, 1]
