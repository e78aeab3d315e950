"""Checks of arguments that return what they checked, one line a hyper-parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from equivox.errors import nearest

Number = TypeVar("Number", bound=float | None)
Choice = TypeVar("Choice")


def number(
    name: str,
    value: Number,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Number:
    """`value`, if it is in its range; None passes, for whoever allows it.

    >>> number("alpha", 0.3, least=0)
    0.3
    >>> number("momentum", 1.0, least=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: `momentum` should lie in [0, 1). Found `momentum = 1.0`.
    """
    if value is None:
        return value
    if not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` should be a number. Found `{name} = {value!r}`.")
    low = least is None or value >= least
    high = most is None or value <= most
    if low and high and (above is None or value > above) and (below is None or value < below):
        return value  # a NaN fails every comparison
    rule = _rule(least, above, most, below)
    raise ValueError(f"`{name}` should {rule}. Found `{name} = {value}`.")


def _rule(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    if most is None and below is None:
        if above is not None:
            return "be positive" if above == 0 else f"be above {above}"
        return "be zero or more" if least == 0 else f"be {least} or more"
    left = f"[{least}" if least is not None else f"({'-inf' if above is None else above}"
    right = f"{most}]" if most is not None else f"{below})"
    return f"lie in {left}, {right}"


def span(starts: int, ends: int | None) -> tuple[int, int | None]:
    """The first and the last epoch of a method, from 0, if they are such.

    >>> span(0, None)
    (0, None)
    """
    number("starts", starts)
    number("ends", ends)
    return starts, ends


def choice(name: str, value: Choice, known: Sequence[object]) -> Choice:
    """`value`, if it is one of the known.

    >>> choice("heads", "mine", ("own", "split"))
    Traceback (most recent call last):
    ...
    ValueError: `heads` should be "own" or "split". Found `'mine'`.
    """
    if value in known:
        return value
    *others, last = (f'"{each}"' if isinstance(each, str) else str(each) for each in known)
    rule = f"{', '.join(others)} or {last}" if others else last
    raise ValueError(f"`{name}` should be {rule}. Found `{value!r}`.")


def names(name: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse given names that are not known.

    >>> names("factors", {"vidoe": 2.0}, ("audio", "video"))
    Traceback (most recent call last):
    ...
    ValueError: `factors` should name some of audio, video. Found `vidoe`. Did you mean `video`?
    """
    for each in given:
        if each not in known:
            raise ValueError(
                f"`{name}` should name some of {', '.join(known)}. Found `{each}`. "
                + nearest(each, known)
            )
