"""`equivox diagnose`: the diagnosis of a run's folder, or of a model in a file of Python."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import operator
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from equivox.diagnosis.alone import Told
from equivox.diagnosis.diagnose import Diagnosis, diagnose
from equivox.errors import nearest

HOLDS = 3
"""The exit code where a condition of `--fail-on` holds."""

SHORT: dict[str, str] = {
    "imbalance": "contributions.zero.imbalance",
    "relative": "contributions.zero.relative",
    "gap": "probes.*.gap.value",
    "neglected": "verdict.neglected",
    "held_back": "verdict.held_back",
    "gain": "headroom.gain.value",
    "single_gain": "headroom.single_gain.value",
    "headroom": "headroom.*gain.value",
    "joint": "headroom.joint.value",
    "late_fusion": "headroom.late_fusion.value",
    "chance": "headroom.chance",
    "faults": "data",
}
"""Short names for `--fail-on`, and what they are in the JSON: of several the largest, of lists the
number of entries, and of the data's findings that of the faults."""

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


def main(given: argparse.Namespace) -> int:
    """Diagnose, print, write the page; 3 where a condition of `--fail-on` holds."""
    conditions = [condition(text) for text in given.fail_on]
    _check_out(given.out)
    arguments = _arguments(given.subject)
    with progress() as told:
        found = diagnose(**arguments, epochs=given.epochs, metric=given.metric, told=told)
    if given.out is not None:
        found.save(given.out)
    plain = found.to_json()
    if given.json:
        print(json.dumps(plain, indent=1, allow_nan=False))
    else:
        print(found)
        if given.out is not None:
            print(f"\nPage: {given.out}")
    return _judged(conditions, plain)


def _judged(conditions: Sequence[Condition], plain: Mapping[str, Any]) -> int:
    """The exit code, and on stderr what holds."""
    sys.stdout.flush()
    holding = [(each, found) for each in conditions for found, holds in [each(plain)] if holds]
    for each, found in holding:
        print(f"equivox: `{each}` holds: found {found:.4g}.", file=sys.stderr)
    return HOLDS if holding else 0


# ── conditions ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Condition:
    """A comparison of a value of the diagnosis with a number."""

    name: str
    sign: str
    number: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.number:g}"

    def __call__(self, plain: Mapping[str, Any]) -> tuple[float, bool]:
        """The value, and whether the condition holds.

        Raises ValueError for an unknown name, and for what was not measured.
        """
        value = named(plain, self.name)
        return value, OPERATORS[self.sign](value, self.number)


def condition(text: str) -> Condition:
    """The condition that is written NAME OP NUMBER.

    Raises ValueError for what is not, and for a name that no diagnosis has.

    >>> condition("imbalance>0.3")
    Condition(name='imbalance', sign='>', number=0.3)
    """
    parts = re.fullmatch(r"\s*([^<>=!]+?)\s*(<=|>=|==|!=|<|>)\s*([^<>=!]+?)\s*", text)
    number = _number(parts[3]) if parts else None
    if parts is None or number is None:
        raise ValueError(
            "A condition should be written NAME OP NUMBER, with one of "
            f"{' '.join(OPERATORS)}. Found `{text}`. For example `imbalance>0.3`."
        )
    known = {*SHORT, *(f.name for f in fields(Diagnosis))}
    if parts[1].partition(".")[0] not in known:
        raise _unknown(parts[1], SHORT)
    return Condition(parts[1], parts[2], number)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def named(plain: Mapping[str, Any], name: str) -> float:
    """The value of a short name, or of a flat one such as `probes.audio.gap.low`."""
    values = flat(plain)
    if name == "faults":
        return sum(finding["severity"] == "fault" for finding in plain["data"])
    if name in ("neglected", "held_back"):
        return len(plain["verdict"][name])
    pattern = SHORT.get(name, name)
    if "*" in pattern and name in SHORT:
        shape = re.escape(pattern).replace(r"\*", ".*")
        found = [x for key, x in values.items() if re.fullmatch(shape, key) and x is not None]
        value = max(found, default=None)
    elif pattern in values:
        value = values[pattern]
    else:
        raise _unknown(name, {*SHORT, *values})
    if value is None:
        raise ValueError(f"A condition is on something measured. Found that `{name}` was not.")
    return value


def flat(plain: Any, name: str = "") -> dict[str, float | None]:
    """The numbers of nested values, and what was not measured, by their names with dots.

    >>> flat({"a": {"b": 0.5, "c": [1, True]}, "d": "word"})
    {'a.b': 0.5, 'a.c.0': 1.0, 'a.c.1': 1.0}
    """
    if isinstance(plain, Mapping):
        parts = {str(key): part for key, part in plain.items()}
    elif isinstance(plain, Sequence) and not isinstance(plain, str):
        parts = {str(place): part for place, part in enumerate(plain)}
    else:
        return {} if isinstance(plain, str) else {name: None if plain is None else float(plain)}
    return {
        key: x
        for part, inside in parts.items()
        for key, x in flat(inside, f"{name}.{part}" if name else part).items()
    }


def _unknown(name: str, known: Any) -> ValueError:
    return ValueError(
        f"A condition is on a number of the diagnosis's JSON. Found `{name}`. "
        f"{nearest(name, known)}"
    )


# ── what is diagnosed ───────────────────────────────────────────────────────────────────────────


def _arguments(subject: str) -> dict[str, Any]:
    """The arguments of `diagnose` for a run's folder or `file.py:model,loaders,task`."""
    if Path(subject).is_dir():
        found = of_folder(Path(subject))
    elif ".py:" in subject:
        found = of_file(subject)
    else:
        raise ValueError(
            "What is diagnosed should be the folder of a run, or `file.py:model,loaders` with "
            f"their names in the file. Found `{subject}`, which is neither."
        )
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return found | {"receipt": {"command": command, **found["receipt"]}}


def of_folder(path: Path) -> dict[str, Any]:
    """The arguments of `diagnose` for a run that `equivox train` finished, of its best epoch.

    Raises what `bench.training.restored` raises.
    """
    from equivox.bench.folder import CONFIG
    from equivox.bench.training import Result, protocol, restored
    from equivox.randomness import preserved_random_state

    training = restored(path)
    data, experiment = training.data, training.experiment
    order = torch.Generator().manual_seed(experiment.seed)
    with preserved_random_state():
        torch.manual_seed(experiment.seed)  # as the network's own encoders began
        encoders = data.encoders()
    return {
        "subject": training.balancer,
        "loaders": {
            "train": data.loader("train", experiment.batch_size, generator=order),
            "validation": data.loader("validation", 512),
            "test": data.loader("test", 512),
        },
        "encoders": encoders,
        "optimizer": experiment.optimizer_for,
        "classes": data.classes,
        "receipt": {
            "run": str(path),
            "epoch": Result.read(path).best["epoch"],
            "protocol": protocol(experiment, data)["fingerprint"],
            **json.loads((path / CONFIG).read_bytes()),
        },
    }


def of_file(spec: str) -> dict[str, Any]:
    """The arguments of `diagnose` for `file.py:model,loaders` or `file.py:model,loaders,task`.

    Raises FileNotFoundError where there is no such file, ValueError where it cannot be run or does
    not hold these names.
    """
    place, _, names = spec.rpartition(":")
    parts = [name.strip() for name in names.split(",")]
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(
            "A file's model is written `file.py:model,loaders` or `file.py:model,loaders,task`. "
            f"Found `{spec}`."
        )
    module = _run(Path(place))
    values = [_attribute(module, name, place) for name in parts]
    if not isinstance(values[1], Mapping):
        raise TypeError(
            f"The loaders should be a mapping by split. Found `{parts[1]}` of type "
            f"`{type(values[1]).__name__}` in `{place}`."
        )
    found = dict(zip(("subject", "loaders", "task"), values, strict=False))
    return found | {"receipt": {"file": spec}}


def _run(path: Path) -> Any:
    """The module of a file, which may import what lies beside it."""
    if not path.is_file():
        raise FileNotFoundError(f"A model's file should be there. Found none at `{path}`.")
    description = importlib.util.spec_from_file_location(f"diagnosed_{path.stem}", path)
    if description is None or description.loader is None:
        raise ValueError(f"A model's file should be one of Python. Found `{path}`.")
    module = importlib.util.module_from_spec(description)
    sys.modules[module.__name__] = module  # for what is looked up by its module's name
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        description.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module.__name__]
        raise ValueError(
            f"A model's file should run. Found `{type(error).__name__}` in `{path}`: {error}."
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _attribute(module: Any, name: str, place: str) -> Any:
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise ValueError(
            f"`{place}` should hold what is named. Found no `{name}`. {nearest(name, known)}"
        )
    return getattr(module, name)


def _check_out(path: Path | None) -> None:
    """Refuse, before the work, a place where no page can be written."""
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(
            f"`--out` should be the file of the page. Found a folder: `{path}`."
        )
    if path.suffix == ".json":
        raise ValueError(
            "`--out` should be the page, and its twin in JSON lies beside it. Found "
            f"`{path}`. Write `{path.with_suffix('.html')}`."
        )
    there = next(p for p in path.absolute().parents if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise OSError(f"`--out` should be where one can write. Found `{there}`, where one cannot.")


# ── progress ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def progress() -> Iterator[Told | None]:
    """A bar with the time left, on stderr; nothing outside a terminal or without rich."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=1.0, left="")

        def told(what: str, share: float) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            left = f"about {elapsed * (1 / share - 1):.0f} s left" if share > 0 else ""
            bar.update(task, description=what, completed=share, left=left)

        yield told
