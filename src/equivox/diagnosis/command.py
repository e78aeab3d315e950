"""`equivox diagnose`: the diagnosis of a run's folder, or of a model in a file of Python."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from equivox.diagnosis.alone import Told
from equivox.diagnosis.conditions import Condition, condition
from equivox.diagnosis.diagnose import diagnose
from equivox.diagnosis.dynamics import Dynamics
from equivox.errors import nearest
from equivox.model import Multimodal

HOLDS = 3
"""The exit code where a condition of `--fail-on` holds."""


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
    return found | {"receipt": {"command": command} | found["receipt"]}


def of_folder(path: Path) -> dict[str, Any]:
    """The arguments of `diagnose` for a run that `equivox train` finished, of its best epoch.

    Raises what `bench.training.restored` raises.
    """
    from equivox.bench.folder import CONFIG, read_metrics
    from equivox.bench.training import Result, protocol, restored
    from equivox.randomness import preserved_random_state

    training = restored(path)
    described = json.loads((path / CONFIG).read_bytes())
    data, experiment = training.data, training.experiment
    order = torch.Generator().manual_seed(experiment.seed)
    with preserved_random_state():
        torch.manual_seed(experiment.seed)  # as the network's own encoders began
        encoders = data.encoders()
    dynamics = Dynamics.of_records(read_metrics(path), data.modalities)
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
        "dynamics": dynamics if dynamics.epochs else None,
        "receipt": {
            "run": str(path),
            "epoch": Result.read(path).best["epoch"],
            "protocol": protocol(experiment, data)["fingerprint"],
            "experiment": described.pop("experiment"),
            "training": described,
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
    if len(parts) == 2 and isinstance(values[0], Multimodal):
        raise ValueError(
            "A model does not say what it is trained for. Found no task. Write "
            f"`{spec.replace(' ', '')},task`, with its name in the file, or name the balancer."
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
    try:
        with tempfile.TemporaryFile(dir=there):  # permissions alone do not tell: see `/proc`
            pass
    except OSError as error:
        raise OSError(
            f"`--out` should be where one can write. Found `{there}`, where one cannot: "
            f"{error.strerror}."
        ) from error


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
