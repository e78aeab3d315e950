"""Numbers as tables and sentences write them."""

from __future__ import annotations

import math


def number(value: float, digits: int) -> str:
    """A number; empty where it is not known."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def signed(number: float) -> str:
    """A difference with its sign, a true minus included.

    >>> signed(0.0123), signed(-0.0001)
    ('+0.012', '+0.000')
    """
    return f"{number:+z.3f}".replace("-", "\N{MINUS SIGN}")


def plus_minus(half: float) -> str:
    """The longer half of an interval; empty where one seed gives none."""
    return "" if math.isnan(half) else f" ± {half:.3f}"


def counted(number: int, noun: str) -> str:
    """A number of things whose plural ends in s.

    >>> counted(1, "data set"), counted(2, "run")
    ('1 data set', '2 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def p_text(p: float) -> str:
    """A p-value; empty where one seed gives none."""
    if math.isnan(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Seconds in the two units that matter.

    >>> duration(7.2), duration(125), duration(3 * 3600 + 60)
    ('7 s', '2 min', '3 h 1 min')
    """
    if math.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
