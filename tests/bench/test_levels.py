"""Levels, halves and seeds of intervals."""

from __future__ import annotations

import pytest

from equivox.bench.robust import improvement, interquartile_mean
from equivox.bench.statistics import Interval, bca, detectable_effect, paired

VALUES = [0.90, 0.93, 0.91, 0.95, 0.92, 0.97, 0.90]


def test_levels_reach_every_interval() -> None:
    for of in (bca, lambda v, level: _ends(interquartile_mean(v, level))):
        low, high = of(VALUES, 0.95)
        inner_low, inner_high = of(VALUES, 0.5)
        assert low < inner_low < inner_high < high


def _ends(found: Interval) -> tuple[float, float]:
    return found.low, found.high


def test_what_could_be_seen_is_at_the_level_of_the_interval() -> None:
    first, second = dict(enumerate(VALUES)), dict.fromkeys(range(7), 0.9)
    found = paired(first, second, level=0.8)
    differences = [x - 0.9 for x in VALUES]
    assert found.detectable == pytest.approx(detectable_effect(differences, alpha=0.2), rel=1e-3)
    assert found.detectable < paired(first, second).detectable


def test_half_is_to_the_farther_end() -> None:
    assert Interval(0.0, -2.0, 1.0, 5, "BCa bootstrap").half == 2.0
    assert Interval(0.0, -1.0, 2.0, 5, "BCa bootstrap").half == 2.0


def test_a_loss_is_as_clear_as_a_gain() -> None:
    better, worse = {0: 0.93, 1: 0.95, 2: 0.94}, {0: 0.90, 1: 0.93, 2: 0.91}
    assert paired(better, worse).clear and paired(worse, better).clear
    assert not paired(better, {0: 0.95, 1: 0.93, 2: 0.94}).clear


def test_an_improvement_has_the_seeds_of_the_smaller_sample() -> None:
    assert improvement([0.1, 0.2, 0.3], [0.1, 0.2]).seeds == 2
