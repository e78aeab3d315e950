"""Confidence, and the hinge on its rise."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equivox import Classification, Dense, MultiLabel
from equivox.functional.confidence import confidence, rises

Y = torch.tensor([0, 1, 2, 1])


def draw(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 99), shift=st.floats(-5, 5))
def test_confidence_ignores_names_of_classes_and_shifts(seed: int, shift: float) -> None:
    z = draw(seed, 4, 3)
    c = confidence(z, Y, Classification())
    assert bool(((c >= 1 / 3 - 1e-6) & (c <= 1)).all())
    torch.testing.assert_close(confidence(z.flip(1) + shift, Y, Classification()), c)


def test_labels_are_as_sure_of_no_as_of_yes() -> None:
    z, y = draw(0, 4, 3), torch.zeros(4, 3)
    expected = z.abs().sigmoid().mean(1)
    torch.testing.assert_close(confidence(z, y, MultiLabel()), expected)
    torch.testing.assert_close(confidence(-z, y, MultiLabel()), expected)


def test_ignored_positions_say_nothing() -> None:
    z = draw(0, 4, 3)
    padded = torch.stack([z, draw(1, 4, 3)], 2)
    target = torch.stack([Y, torch.full_like(Y, 255)], 1)
    expected = confidence(z, Y, Classification())
    torch.testing.assert_close(confidence(padded, target, Dense()), expected)


@given(seed=st.integers(0, 99), margin=st.floats(0, 1))
def test_only_one_way_is_a_rise(seed: int, margin: float) -> None:
    a, b = torch.rand(2, 5, generator=torch.Generator().manual_seed(seed))
    there, back = rises(a, b, margin=margin), rises(b, a, margin=margin)
    assert bool((there * back == 0).all())
    torch.testing.assert_close(there + back, ((a - b).abs() - margin).clamp(min=0))
    nobody = torch.zeros(5)
    assert bool((rises(a, b, nobody, margin) == 0).all())
