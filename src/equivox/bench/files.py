"""The JSON files that runs are kept in: as they should be or refused by their names, and whole."""

from __future__ import annotations

import json
import os
import reprlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

Made = TypeVar("Made")
Shape = type | Mapping[Any, Any]
"""A type, where float stands for any number; or the shapes of the values of an object by name,
which have to be there, and under `...` that of all others."""

NUMBERS: Mapping[EllipsisType, type] = {...: float}
"""An object of numbers, by any names."""


def read_json(path: Path, what: str, way_out: str, make: Callable[[Any], Made]) -> Made:
    """What is made of the content of a JSON file.

    :param what: The file should hold, for the message; `way_out` is its last sentence.
    :param make: It raises ValueError or TypeError where the content is not as it should be.
    :raises FileNotFoundError: Where there is no such file.
    :raises ValueError: Where it is damaged, or `make` refuses it.
    """
    try:
        return make(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        found = str(error).removesuffix(".")
        raise ValueError(f"`{path}` should hold {what}. Found: {found}. {way_out}") from error


def shaped(value: Any, shape: Shape, name: str = "") -> Any:
    """The value; ValueError where it is of another shape, which says what is found.

    >>> shaped({"seed": 0, "test": {"accuracy": True}}, {"seed": int, "test": NUMBERS})
    Traceback (most recent call last):
    ...
    ValueError: `accuracy = True`
    """
    if not isinstance(shape, Mapping):
        if not _is(value, shape):
            raise ValueError(f"`{name} = {reprlib.repr(value)}`")
        return value
    if not isinstance(value, dict):
        raise ValueError(f"`{name} = {reprlib.repr(value)}`" if name else f"`{value!r:.40}`")
    if lacking := sorted(set(shape) - set(value) - {...}):
        raise ValueError(f"no {', '.join(f'`{each}`' for each in lacking)}")
    for key, part in value.items():
        if (inner := shape.get(key, shape.get(...))) is not None:
            shaped(part, inner, key)
    return value


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float and isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, kind)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────


def write(path: Path, plain: Any) -> None:
    """Plain values as JSON, in place of an older file at once or not at all."""
    replace(path, (json.dumps(plain, indent=1) + "\n").encode())


def replace(path: Path, content: bytes) -> None:
    """Bytes, likewise; on the disk when this returns."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def make_folder(path: Path) -> None:
    """A folder, with those that it lies in; on the disk when this returns."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in new:
        sync(each.parent)


def sync(folder: Path) -> None:
    """Bring a folder's list of names to the disk; not possible, nor needed, on Windows."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
