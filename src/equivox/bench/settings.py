"""What a setting of an experiment may be; ValueError or TypeError for what it may not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from equivox.errors import nearest


def check_known(what: str, name: Any, known: Iterable[str]) -> None:
    """One of these names."""
    names = list(known)
    if name not in names:
        raise ValueError(
            f"The {what} should be a known one. Found `{name!r}`. {nearest(str(name), names)}"
        )


def check_whole(name: str, value: Any, least: int, optional: bool = True) -> None:
    """A whole number that is not too small, or None where it is optional."""
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"`{name}` should be a whole number. Found `{name} = {value!r}`.")
    if value < least:
        raise ValueError(f"`{name}` should be {least} or more. Found `{name} = {value}`.")


def check_number(name: str, value: Any, positive: bool) -> None:
    """A finite number that is positive, or not negative; None is no number, and right."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"`{name}` should be a number. Found `{name} = {value!r}`.")
    if not 0 <= value <= sys.float_info.max or (positive and value == 0):
        rule = "positive" if positive else "zero or more"
        raise ValueError(f"`{name}` should be {rule} and finite. Found `{name} = {value}`.")


def plain(name: str, values: Any) -> dict[str, Any]:
    """As JSON gives them again, so that a stored experiment equals the original."""
    try:
        found = json.loads(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` should hold plain values. Found: {error}.") from error
    if not isinstance(found, dict):
        raise TypeError(f"`{name}` should be values by name. Found `{values!r}`.")
    return found
