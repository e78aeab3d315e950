"""Average ranks, Friedman's test and Nemenyi's critical difference, against published values."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from equivox.bench.ranking import cliques, critical_difference, friedman, ranking

# Demšar 2006, Table 5(a): q_0.05 of k = 2 … 10 classifiers.
PUBLISHED = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]

# Demšar 2006, Table 6: AUC of C4.5, C4.5 with m, with cf, with both, on 14 data sets.
DEMSAR = {
    "C4.5": [
        0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972,
        0.957,
    ],
    "C4.5+m": [
        0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981,
        0.978,
    ],
    "C4.5+cf": [
        0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751,
        0.946,
    ],
    "C4.5+m+cf": [
        0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975,
        0.970,
    ],
}  # fmt: skip


def test_the_published_example() -> None:
    """Ranks 3.143, 2.000, 2.893, 1.964; critical difference 1.25."""
    values = {str(i): {name: DEMSAR[name][i] for name in DEMSAR} for i in range(14)}
    found = ranking(values)
    expected = {"C4.5+m+cf": 1.964, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert list(found.ranks) == list(expected)
    assert found.ranks == pytest.approx(expected, abs=1e-3)
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    assert found.friedman < stats.chi2.sf(9.28, 3)  # the paper's, which is not corrected for ties
    assert found.cliques == (tuple(expected),)


def test_critical_values_are_the_published_ones() -> None:
    for k, q in enumerate(PUBLISHED, start=2):
        assert critical_difference(k, 7) == pytest.approx(q * math.sqrt(k * (k + 1) / 42), abs=1e-3)
    assert math.isnan(critical_difference(1, 7))


def test_friedman_is_that_of_scipy_where_it_is_defined() -> None:
    values = [[0.1, 0.5, 0.3], [0.2, 0.6, 0.1], [0.3, 0.7, 0.2]]
    assert friedman(values) == pytest.approx(stats.friedmanchisquare(*values).pvalue)
    assert friedman([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]) == 1.0
    assert math.isnan(friedman(values[:2]))
    assert math.isnan(friedman([[0.1], [0.2], [0.3]]))


def test_only_what_ran_everywhere_is_ranked_and_ties_share() -> None:
    values = {
        "one": {"a": -3.0, "b": -1.0, "c": -1.0, "d": 0.0},
        "two": {"a": 0.1, "b": 0.1, "c": 0.1},
    }
    found = ranking(values)
    assert found.ranks == {"b": (1.5 + 2) / 2, "c": (1.5 + 2) / 2, "a": (3 + 2) / 2}
    assert found.left_out == ("d",)


def test_cliques_are_as_large_as_they_can_be() -> None:
    ranks = {"a": 1.0, "b": 1.9, "c": 2.5, "d": 2.9, "e": 5.0}
    assert cliques(ranks, 1.1) == (("a", "b"), ("b", "c", "d"))
    assert cliques(ranks, 10.0) == (tuple(ranks),)
    assert cliques(ranks, 0.1) == ()


def test_of_no_data_set_there_is_no_rank() -> None:
    found = ranking({})
    assert (found.ranks, found.cliques) == ({}, ())
    assert math.isnan(found.friedman) and math.isnan(found.critical)
