"""Reading what the runs of a comparison left: `record.json` where one ended, `failed.json` where it
diverged or was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from equivox.bench.files import NUMBERS, Shape, read_json, shaped

RECORD, FAILED = "record.json", "failed.json"
FORMAT = 1
"""Of both files; raised when an older reader would misunderstand them."""

_NAMES = {"data": str, "method": str, "seed": int, "tuned": int}
_LATER = {"wall": float, "seconds": float, "imbalance": float}
"""What older versions did not write, or not of every run."""
_WAY_OUT = "Delete it: its run is measured again from its checkpoint."


def records(out: Path) -> Iterator[dict[str, Any]]:
    """The records of all finished runs, in the order of their folders; `folder` is theirs in `out`.

    :raises ValueError: Where one is damaged, lacks something, or is of a newer version.
    """
    return _read(out, RECORD)


def failures(out: Path) -> Iterator[dict[str, Any]]:
    """What is known of the runs that diverged or were refused; as `records`."""
    return _read(out, FAILED)


def _read(out: Path, name: str) -> Iterator[dict[str, Any]]:
    for path in sorted(out.glob(f"runs/*/*/*/{name}")):
        made = _record if name == RECORD else _failure
        yield _checked(path, made) | {"folder": str(path.parent.relative_to(out))}


def read(path: Path, shape: Shape) -> dict[str, Any]:
    """One of these files, of a run or of a trial.

    :raises ValueError: Where it is damaged, of another shape, or of a newer version.
    """
    return _checked(path, lambda found: shaped(found, shape))


def _checked(path: Path, make: Callable[[Any], Any]) -> dict[str, Any]:
    found = read_json(path, "a record", _WAY_OUT, _later)
    if found.get("format", 1) != FORMAT:
        raise ValueError(
            f"`{path}` should be of format {FORMAT}. Found `{found['format']}`: another version of "
            "equivox wrote it. Read it with that version."
        )
    record: dict[str, Any] = read_json(path, "a record", _WAY_OUT, make)
    return record


def _later(found: Any) -> dict[str, Any]:
    record: dict[str, Any] = shaped(found, {})
    return dict(shaped(record, {name: kind for name, kind in _LATER.items() if name in record}))


def _record(found: Any) -> dict[str, Any]:
    shaped(found, {**_NAMES, "metric": str, "seconds": float, "fingerprint": str})
    test = {found["metric"]: float, ...: float}
    measured = {"validation": float, "test": test, "last": {"test": test}, "probe": NUMBERS}
    return shaped(found, {**measured, "epoch": int, "arguments": {}})


def _failure(found: Any) -> dict[str, Any]:
    return shaped(found, {**_NAMES, "error": str})
