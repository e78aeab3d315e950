"""Methods ranked over data sets, with the test and the critical difference.

Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from equivox.bench.leaderboard import Key, Leaderboard


@dataclass(frozen=True)
class Ranking:
    """Average ranks of the methods that ran on all of the data sets.

    Attributes:
        data: the data sets.
        ranks: the average rank by method, lowest first: 1 is best, ties share the mean of theirs.
        friedman: p of Friedman's test that all methods rank alike, corrected for ties; its
            chi-squared distribution wants more than five methods on more than ten data sets. NaN
            for fewer than three methods or two data sets.
        critical: the difference of two average ranks that is significant at 5 % by Nemenyi's test.
        cliques: groups of methods, as large as they can be, of which no two differ by as much.
        left_out: methods that did not run on all of the data sets.
    """

    data: tuple[str, ...]
    ranks: Mapping[str, float]
    friedman: float
    critical: float
    cliques: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]


def rankings(boards: Mapping[Key, Leaderboard]) -> dict[int, Ranking]:
    """The average ranks by the number of trials, where there are several data sets and methods.

    Over the boards that have a yardstick: others have only begun.
    """
    groups: dict[int, list[Leaderboard]] = {}
    for (_, tuned), board in boards.items():
        if board.best:
            groups.setdefault(tuned, []).append(board)
    every = {tuned: ranks(group) for tuned, group in groups.items() if len(group) > 1}
    return {tuned: found for tuned, found in every.items() if len(found.ranks) > 1}


def ranks(boards: Iterable[Leaderboard]) -> Ranking:
    """Rank by the mean metric on the test data; a seed that failed counts for nothing.

    :param boards: One a data set, all of one number of trials.
    :raises ValueError: Where two are of one data set.
    """
    values: dict[str, dict[str, float]] = {}
    for board in boards:
        data = board.lines[0].data
        if data in values:
            raise ValueError(
                "Methods are ranked on one board of every data set. Found two of "
                f"`{data}`. Choose those of one number of trials."
            )
        values[data] = {line.method: line.metric.mean for line in board.lines}
    return ranking(values)


def ranking(values: Mapping[str, Mapping[str, float]]) -> Ranking:
    """Rank by a value, larger is better.

    :param values: By data set and method.

    >>> found = ranking({"a": {"x": 0.9, "y": 0.8}, "b": {"x": 0.5, "y": 0.4, "z": 0.6}})
    >>> found.ranks, found.left_out
    ({'x': 1.0, 'y': 2.0}, ('z',))
    """
    from scipy.stats import rankdata

    every = list(dict.fromkeys(name for row in values.values() for name in row))
    names = [name for name in every if all(name in row for row in values.values())]
    rows = [rankdata([-row[name] for name in names]) for row in values.values()]
    average = {name: fmean(row[i] for row in rows) for i, name in enumerate(names)}
    ordered = dict(sorted(average.items(), key=lambda item: item[1]))
    critical = critical_difference(len(names), len(rows))
    return Ranking(
        tuple(values),
        ordered,
        friedman([[row[name] for row in values.values()] for name in names]),
        critical,
        cliques(ordered, critical),
        tuple(name for name in every if name not in names),
    )


def friedman(values: Sequence[Sequence[float]]) -> float:
    """p of Friedman's test; NaN for fewer than three methods or two data sets.

    :param values: (methods, data sets).
    """
    from scipy.stats import friedmanchisquare

    if len(values) < 3 or len(values[0]) < 2:
        return math.nan
    if all(len(set(column)) == 1 for column in zip(*values, strict=True)):
        return 1.0  # the test's limit
    return float(friedmanchisquare(*values).pvalue)


def critical_difference(methods: int, data: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference q sqrt(k (k + 1) / (6 N)), of k methods on N data sets.

    q is the studentized range of k groups, infinite degrees of freedom, over sqrt(2).

    >>> round(critical_difference(5, 30), 3)
    1.114
    """
    from scipy.stats import studentized_range

    if methods < 2 or data < 1:
        return math.nan
    q = float(studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * data))


def cliques(ranks: Mapping[str, float], critical: float) -> tuple[tuple[str, ...], ...]:
    """The largest groups of methods in which no two ranks differ by `critical` or more.

    :param ranks: Average ranks, lowest first.

    >>> cliques({"a": 1.0, "b": 1.5, "c": 2.2, "d": 4.0}, critical=1.0)
    (('a', 'b'), ('b', 'c'))
    """
    names = list(ranks)
    found: list[tuple[str, ...]] = []
    for first, name in enumerate(names):
        group = [n for n in names[first:] if ranks[n] - ranks[name] < critical]
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(tuple(group))
    return tuple(found)
