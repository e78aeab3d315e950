"""Norms of samples and their distance from targets: scale, order, what learns."""

from __future__ import annotations

import torch
from torch import Tensor

from equivox.functional.norms import norm_distance, sample_norms


def problem() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    scales = {k: torch.rand((), requires_grad=True) for k in "abc"}
    norms = {k: torch.rand(4) for k in "abc"}
    ratios = dict(zip("abc", torch.rand(3).softmax(0).unbind(), strict=True))
    return scales, norms, ratios


def test_distance_grows_with_the_norms_and_forgets_the_order() -> None:
    scales, norms, ratios = problem()
    distance = norm_distance(scales, norms, ratios)
    torch.testing.assert_close(
        norm_distance(scales, {k: 3 * n for k, n in norms.items()}, ratios), 3 * distance
    )
    torch.testing.assert_close(
        norm_distance(scales, {k: norms[k] for k in "cba"}, ratios), distance
    )


def test_equal_branches_at_their_share_have_no_distance() -> None:
    one = torch.ones(())
    distance = norm_distance(
        dict.fromkeys("ab", one), dict.fromkeys("ab", torch.rand(5)), dict.fromkeys("ab", one)
    )
    assert not distance.any()


def test_norms_of_dense_predictions_are_means_over_positions() -> None:
    z = torch.randn(2, 3, 4, 5)
    expected = torch.stack([sample_norms(z[..., i, j]) for i in range(4) for j in range(5)])
    torch.testing.assert_close(sample_norms(z), expected.mean(0))
