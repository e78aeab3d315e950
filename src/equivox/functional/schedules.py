"""Schedules over the epochs of a training."""

from __future__ import annotations


def within(epoch: int, starts: int, ends: int | None) -> bool:
    """Whether a method acts at this epoch: from `starts` on, to `ends` inclusive if there is one.

    >>> [within(epoch, 1, 2) for epoch in range(4)]
    [False, True, True, False]
    """
    return starts <= epoch and (ends is None or epoch <= ends)
