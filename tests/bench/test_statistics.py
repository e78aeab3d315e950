"""Intervals, paired tests and detectable effects, against scipy, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from equivox.bench.statistics import (
    bca,
    by_seed,
    detectable_effect,
    holm,
    interval,
    p_value,
    paired,
    wilcoxon,
)


def test_student_interval_is_that_of_scipy() -> None:
    values = [0.91, 0.94, 0.90, 0.95]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.kind, found.seeds) == ("Student t", 4)
    assert found.half == pytest.approx((high - low) / 2)


def test_many_seeds_are_resampled_and_it_says_so() -> None:
    values = list(np.random.default_rng(0).exponential(size=40))
    found, again = interval(values), interval(values)
    assert found.kind == "BCa bootstrap"
    assert found == again
    assert found.low < found.mean < found.high
    # Skew is what BCa sees and Student's t does not.
    assert found.high - found.mean > found.mean - found.low


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = interval([0.5])
    assert found.mean == 0.5 and math.isnan(found.low) and found.kind == "none"
    gain = paired({0: 0.6}, {0: 0.5})
    assert gain.mean == pytest.approx(0.1) and math.isnan(gain.p) and not gain.clear


def test_pairing_by_seed_removes_what_seeds_share() -> None:
    first = {0: 0.61, 1: 0.81, 2: 0.71}
    second = {2: 0.70, 0: 0.60, 1: 0.799}
    gain = paired(first, second)
    values = [0.61, 0.81, 0.71], [0.60, 0.799, 0.70]
    assert gain.p == pytest.approx(stats.ttest_rel(*values).pvalue)
    assert gain.clear and stats.ttest_ind(*values).pvalue > 0.5
    assert paired(second, first).mean == pytest.approx(-gain.mean)


def test_only_common_seeds_are_compared() -> None:
    assert paired({0: 1.0, 1: 2.0, 7: 9.0}, {0: 0.0, 1: 0.5}).seeds == 2
    with pytest.raises(ValueError, match="a seed that both have"):
        paired({0: 1.0}, {1: 1.0})


def test_equal_differences_are_the_limit_of_the_test() -> None:
    assert p_value([0.0, 0.0, 0.0]) == 1.0
    assert p_value([0.5, 0.5]) == 0.0
    assert interval([0.3, 0.3, 0.3]).half == 0.0


def test_detectable_effect_has_the_power_it_claims() -> None:
    spread = [-1.0, 0.0, 1.0, 0.0, 0.0]
    effect = detectable_effect(spread, power=0.8)
    draws = np.random.default_rng(1).normal(effect, np.std(spread, ddof=1), size=(4000, 5))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_detectable_effect_scales_with_the_spread_and_shrinks_with_seeds() -> None:
    few = [-1.0, 0.0, 1.0]
    assert detectable_effect([2 * x for x in few]) == pytest.approx(2 * detectable_effect(few))
    assert detectable_effect(few * 4) < detectable_effect(few)


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_values_have_to_be_there_and_finite(values: list[float]) -> None:
    with pytest.raises(ValueError, match="one finite value a seed"):
        interval(values)


def test_level_has_to_be_a_probability() -> None:
    with pytest.raises(ValueError, match="`level` should be between 0 and 1"):
        interval([0.1, 0.2], level=95)


def test_bca_is_that_of_scipy_and_follows_the_skew() -> None:
    values = [0.01, 0.012, 0.011, 0.013, 0.05]
    expected = stats.bootstrap((values,), np.mean, method="BCa", rng=0).confidence_interval
    assert bca(values) == pytest.approx((expected.low, expected.high))
    low, high = bca(values)
    assert high - np.mean(values) > np.mean(values) - low
    assert bca([0.2, 0.2, 0.2]) == (0.2, 0.2)
    assert all(map(math.isnan, bca([0.2])))


def test_wilcoxon_is_exact_whatever_the_seeds() -> None:
    assert wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5]) == 2 / 2**5  # the least that 5 seeds can give
    assert wilcoxon([-0.1, 0.2, 0.3, 0.4, 0.5]) == 4 / 2**5
    assert wilcoxon([0.1, 0.1, 0.1, 0.1, -0.1]) == 12 / 2**5  # by hand: one sign of five, or none
    assert wilcoxon([0.0, 0.1, 0.2, 0.3]) == 2 / 2**3  # zeros are left out
    assert wilcoxon([0.0, 0.0]) == 1.0
    assert math.isnan(wilcoxon([0.1]))
    many = np.random.default_rng(0).normal(0.3, 1, 30).tolist()
    assert wilcoxon(many) == stats.wilcoxon(many).pvalue


def test_the_rounding_of_metrics_breaks_no_ties() -> None:
    """Accuracies of 1000 samples, which metrics hold in 32 bits."""
    gains = [-6, 6, -6, 6, 9, -6]
    theirs = [947, 912, 951, 934, 926, 940]
    first, second = (
        {seed: float(np.float32(right) / np.float32(1000)) for seed, right in enumerate(values)}
        for values in ([a + b for a, b in zip(theirs, gains, strict=True)], theirs)
    )
    found = by_seed(first, second)
    assert found == [gain / 1000 for gain in gains]
    assert wilcoxon(found) == wilcoxon([float(gain) for gain in gains]) == 1.0
    equal = paired({seed: value + 0.006 for seed, value in second.items()}, second)
    assert (equal.low, equal.high) == pytest.approx((0.006, 0.006))
    assert (equal.p, equal.detectable) == (0.0, 0.0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_differences_keep_their_digits_at_any_scale(scale: float) -> None:
    found = by_seed({0: 0.25 * scale, 1: 0.5 * scale}, {0: 0.24999 * scale, 1: 0.75 * scale})
    assert found == pytest.approx([1e-5 * scale, -0.25 * scale], rel=1e-3)
    assert by_seed({0: 0.0}, {0: 0.0}) == [0.0]


def test_holm_by_hand() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": math.nan})
    assert found == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_differences_need_a_common_seed() -> None:
    assert by_seed({0: 0.75, 2: 1.0}, {2: 0.5, 0: 0.5}) == [0.25, 0.5]
    with pytest.raises(ValueError, match="a seed that both have"):
        by_seed({}, {0: 1.0})
