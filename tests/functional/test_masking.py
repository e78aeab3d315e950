"""Random masks and the ramp of their strength."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.functional.masking import (
    channels,
    mask_channels,
    nested_masks,
    random_mask,
    sine_ramp,
)


def test_the_worked_ramp() -> None:
    progress = torch.tensor([0.0, 0.05, 0.1, 0.15, 0.3, 0.7], dtype=torch.float64)
    p = torch.stack([sine_ramp(x, 0.3) for x in progress])
    expected = torch.tensor([0, 0.258819, 0.5, 0.707107, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(p, expected, atol=1e-6, rtol=0)
    for width, zeros in ((512, [0, 132, 256, 362, 512, 512]), (6, [0, 1, 3, 4, 6, 6])):
        assert [int((~random_mask(torch.rand(width), x)).sum()) for x in p] == zeros


@given(seed=st.integers(0, 999), width=st.integers(1, 40), share=st.integers(0, 8))
def test_a_mask_has_the_share_of_zeros(seed: int, width: int, share: int) -> None:
    draws = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    mask = random_mask(draws, torch.tensor(share / 8))
    assert int((~mask).sum()) == share * width // 8


def test_every_place_is_masked_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(4000, 5, generator=generator)
    kept = torch.stack([random_mask(row, torch.tensor(0.4)) for row in draws]).float().mean(0)
    torch.testing.assert_close(kept, torch.full((5,), 0.6), atol=0.03, rtol=0)


@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_masks_are_nested(modalities: int) -> None:
    draws = torch.rand(7, modalities, generator=torch.Generator().manual_seed(0))
    masks = nested_masks(draws)
    counts = torch.arange(modalities, 0, -1)[:, None].expand(-1, 7)
    assert torch.equal(masks.sum(-1), counts)
    assert bool((masks[1:] <= masks[:-1]).all())


@pytest.mark.parametrize(
    ("shape", "pool", "axis"),
    [((4, 3), True, 1), ((4, 5, 3), True, 2), ((4, 3, 5), False, 1), ((4, 3, 5, 5), True, 1)],
)
def test_a_masked_channel_is_zero_everywhere(shape: tuple[int, ...], pool: bool, axis: int) -> None:
    torch.manual_seed(0)
    x, kept = torch.randn(shape), torch.tensor([True, False, True])
    padding = torch.zeros(4, 5, dtype=torch.bool)
    assert channels(x, pool) == 3
    masked, untouched = mask_channels((x, padding), kept, pool)
    assert untouched is padding
    for i, stays in enumerate(kept):
        expected = x.select(axis, i) if stays else torch.zeros_like(x.select(axis, i))
        assert torch.equal(masked.select(axis, i), expected)
    rest = mask_channels(x, ~kept, pool)
    assert torch.equal(masked + rest, x)
