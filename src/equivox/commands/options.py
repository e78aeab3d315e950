"""Options of the command line: the parser, and what a value may be."""

from __future__ import annotations

import argparse
import re
from typing import Any


class Parser(argparse.ArgumentParser):
    """A parser whose options are written in full."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    @property
    def options(self) -> list[str]:
        """The names of its options, and of those of its own commands."""
        found = {name: None for action in self._actions for name in action.option_strings}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= {name: None for each in action.choices.values() for name in each.options}
        return list(found)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"it should be 1 or more. Found {text}.")
    return int(text)


def seconds(text: str) -> float:
    """A time above zero, in seconds or with units.

    >>> seconds("90"), seconds("1h30m")
    (90.0, 5400.0)
    """
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text)
    hours, minutes, rest = (float(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    if not (found := 3600 * hours + 60 * minutes + rest) > 0:
        raise argparse.ArgumentTypeError(f"it should be a time, as 90, 15m or 3h. Found {text}.")
    return found


def option(text: str) -> tuple[str, Any]:
    """NAME=VALUE."""
    from equivox.bench.experiment import assignment

    try:
        return assignment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
