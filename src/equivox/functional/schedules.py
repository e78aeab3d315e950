"""Schedules over the epochs of a training."""

from __future__ import annotations

from math import exp

CREMA_D = (
    2.04623704e-1,
    3.35472727e-3,
    1.22989557e-4,
    -2.92947416e-6,
    2.23835486e-8,
    -5.39717505e-11,
)


def within(epoch: int, starts: int, ends: int | None) -> bool:
    """Whether a method acts at this epoch: from `starts` on, to `ends` inclusive if there is one.

    >>> [within(epoch, 1, 2) for epoch in range(4)]
    [False, True, True, False]
    """
    return starts <= epoch and (ends is None or epoch <= ends)


def heuristic_weight(epoch: int) -> float:
    """k = 1 - exp(-1 / t) with t = epoch + 1: a weight that falls, as 1 / t in the end.

    Source: LFM (NeurIPS 2024), of its alignment.

    >>> round(heuristic_weight(0), 6), round(heuristic_weight(9), 6)
    (0.632121, 0.095163)
    """
    return 1 - exp(-1 / (epoch + 1))


def fitted_weight(epoch: int | float) -> float:
    """sum_i c_i e^i, a weight that rises from 0.2 to about one; meant for 0 <= e <= 199.

    Source: LFM (NeurIPS 2024), released code: fitted to the weight of the labels on CREMA-D.

    >>> round(fitted_weight(0), 6), round(fitted_weight(100), 6)
    (0.204624, 0.539155)
    """
    return sum(c * epoch**i for i, c in enumerate(CREMA_D))
