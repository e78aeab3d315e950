"""Measured numbers in words."""

from __future__ import annotations

import math

from equivox.diagnosis.metric import Estimate


def ends_of(x: Estimate | float | None) -> tuple[float | None, float | None, float | None]:
    """The value and the ends of its interval; None for what is not finite, as JSON has no NaN."""
    three = (x.value, x.low, x.high) if isinstance(x, Estimate) else (x, None, None)
    value, low, high = (y if y is not None and math.isfinite(y) else None for y in three)
    return value, low, high


def said_of(x: Estimate | float | None) -> str:
    """A value and its interval in words.

    >>> said_of(Estimate(0.5, 0.4, 0.6)), said_of(None)
    ('0.500 (0.400 to 0.600)', 'not measured')
    """
    value, low, high = ends_of(x)
    if value is None:
        return "not measured"
    if not isinstance(x, Estimate):
        return f"{value:.3g}"
    interval = "" if low is None or high is None else f" ({decimal(low)} to {decimal(high)})"
    return decimal(value) + interval


def decimal(x: float | None) -> str:
    """Three decimals.

    >>> decimal(0.5), decimal(-0.0001), decimal(math.nan)
    ('0.500', '0.000', 'not measured')
    """
    return "not measured" if x is None or not math.isfinite(x) else f"{x:z.3f}"
