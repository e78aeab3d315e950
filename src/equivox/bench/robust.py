"""The interquartile mean and the probability of improvement, with their intervals.

Agarwal et al. recommend both for few runs (Deep Reinforcement Learning at the Edge of the
Statistical Precipice, NeurIPS 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from equivox.bench.statistics import ENOUGH_TO_RESAMPLE, Interval, interval

_NEAR = 1e-9


def interquartile_mean(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean of the values between the quartiles: a quarter is cut off at each end.

    Of 5 seeds the lowest and the highest are left out; of fewer than 4 nothing. The interval is
    that of Tukey and McLaughlin for a trimmed mean (1963), which covers 92 to 97 % of normal
    samples of 4 to 19; from 20 on BCa bootstrap.

    :param values: One finite value a seed, at least one.

    >>> interquartile_mean([0.1, 0.90, 0.91, 0.92, 0.93]).mean
    0.91
    """
    import numpy
    from scipy import stats
    from scipy.stats import mstats

    n, cut = len(values), len(values) // 4
    if cut == 0:
        return interval(values, level)
    mean = float(stats.trim_mean(values, 0.25))
    inner = sorted(values)[cut : n - cut]
    if inner[0] == inner[-1]:  # the winsorised spread is zero
        return Interval(mean, mean, mean, n, "Tukey-McLaughlin")
    if n < ENOUGH_TO_RESAMPLE:
        low, high = mstats.trimmed_mean_ci(values, limits=(0.25, 0.25), alpha=1 - level)
        return Interval(mean, float(low), float(high), n, "Tukey-McLaughlin")

    def trimmed(x: Any, axis: int) -> Any:
        return stats.trim_mean(x, 0.25, axis=axis)

    ends = stats.bootstrap(
        (numpy.array(values),), trimmed, confidence_level=level, method="BCa", rng=0
    ).confidence_interval
    return Interval(mean, float(ends.low), float(ends.high), n, "BCa bootstrap")


def improvement(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """The probability that a run of `first` is better than one of `second`.

    theta = P(X > Y) + P(X = Y) / 2 over all m n pairs of a run of the one and a run of the other.
    The interval holds all theta that lie within z standard errors of what is found, where

        var(theta) = theta (1 - theta) [1 + ((m + n) / 2 - 1) ((1 - theta) / (2 - theta)
                     + theta / (1 + theta))] / (m n):

    Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    part 2, Statistics in Medicine 2006, method 5. Of two normal samples of 5 it covers the truth in
    95 to 96 %, of correlated ones more often. A bootstrap covers 83 to 98 %, and says that 5 seeds
    are certain where all pairs agree.

    :param first: One value a seed, at least one; `second` likewise.

    >>> found = improvement([0.93, 0.95, 0.91], [0.90, 0.92, 0.91])
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
    (0.833, 0.358, 0.976)
    """
    import numpy
    from scipy import optimize

    m, n = len(first), len(second)
    mean = float((numpy.sign(numpy.subtract.outer(first, second)) + 1).mean()) / 2
    if min(m, n) == 1:
        return Interval(mean, math.nan, math.nan, 1, "none")
    z = NormalDist().inv_cdf((1 + level) / 2)

    def excess(theta: float) -> float:
        pairs = 1 + ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - mean) ** 2 - z**2 * theta * (1 - theta) * pairs / (m * n)

    # At 0 and 1 the variance is zero: those roots are none of the ends.
    low = optimize.brentq(excess, 0.0, min(mean, 1 - _NEAR)) if mean > 0 else 0.0
    high = optimize.brentq(excess, max(mean, _NEAR), 1.0) if mean < 1 else 1.0
    return Interval(mean, float(low), float(high), min(m, n), "Newcombe")
