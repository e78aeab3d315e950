"""The interquartile mean and the probability of improvement, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import mstats

from equivox.bench.robust import improvement, interquartile_mean


def test_the_lowest_and_the_highest_of_five_do_not_count() -> None:
    values = [0.1, 0.90, 0.92, 0.94, 0.99]
    found = interquartile_mean(values)
    assert found.mean == pytest.approx(0.92)
    expected = mstats.trimmed_mean_ci(values, limits=(0.25, 0.25))
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert interquartile_mean([-7.0, *values[1:]]) == found  # winsorised, so robust


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.5], [0.3, 0.5, 0.4]])
def test_of_fewer_than_four_seeds_all_count(values: list[float]) -> None:
    found = interquartile_mean(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.kind == ("none" if len(values) == 1 else "Student t")


def test_equal_inner_values_leave_no_spread() -> None:
    found = interquartile_mean([0.0, 0.5, 0.5, 0.5, 1.0])
    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)


def test_many_seeds_are_resampled() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = interquartile_mean(values.tolist())
    assert found.kind == "BCa bootstrap"
    assert found.mean == pytest.approx(stats.trim_mean(values, 0.25))
    assert found.low < found.mean < found.high


def test_the_probability_of_improvement_is_that_of_mann_and_whitney() -> None:
    first, second = [0.90, 0.93, 0.95, 0.91, 0.92], [0.90, 0.92, 0.91, 0.89, 0.94]
    found = improvement(first, second)
    assert found.mean == pytest.approx(stats.mannwhitneyu(first, second).statistic / 25)
    turned = improvement(second, first)
    assert (1 - turned.high, 1 - turned.mean, 1 - turned.low) == pytest.approx(
        (found.low, found.mean, found.high)
    )


@pytest.mark.parametrize("first", [[0.6, 0.7, 0.2, 0.5, 0.9], [5.0, 6.0, 7.0, 8.0, 9.0]])
def test_its_ends_are_as_far_as_the_noise_reaches(first: list[float]) -> None:
    """Newcombe's method 5, written out."""
    found = improvement(first, [0.1, 0.3, 0.55, 0.8])
    z = stats.norm.ppf(0.975)
    for theta in {found.low, found.high} - {1.0}:
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        exponential = (q1 - theta**2 + q2 - theta**2) * 3.5 + theta * (1 - theta)
        assert abs(found.mean - theta) == pytest.approx(z * math.sqrt(exponential / 20))


def test_its_interval_covers_the_truth_with_five_seeds() -> None:
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1 / math.sqrt(2))
    samples = rng.normal(size=(500, 2, 5))
    found = [improvement((x + 1).tolist(), y.tolist()) for x, y in samples]
    assert np.mean([i.low <= truth <= i.high for i in found]) == pytest.approx(0.95, abs=0.03)


def test_five_seeds_that_all_win_are_no_certainty() -> None:
    found = improvement([5.0, 6.0, 7.0, 8.0, 9.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.high) == (1, 1)
    assert 0.5 < found.low < 0.7
    nearly = improvement([5.0, 6.0, 7.0, 8.0, 3.5], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert nearly.low < found.low


def test_ties_count_half() -> None:
    same = improvement([0.5, 0.5], [0.5, 0.5])
    assert same.mean == 0.5 and same.low < 0.12 < 0.88 < same.high
    alone = improvement([0.6], [0.5])
    assert alone.mean == 1 and math.isnan(alone.low)
