"""The folder of a run: what was done, how it went and what came out, whole at any moment."""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from equivox.bench import checkpoint
from equivox.bench.experiment import Experiment
from equivox.bench.files import make_folder, read_json, replace, shaped, write
from equivox.distributed import rank

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
PREDICTIONS = "predictions.safetensors"
LAST, BEST = Path("checkpoints", "last"), Path("checkpoints", "best")
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class Folder:
    """A run's folder: `config.json`, `metrics.jsonl`, `checkpoints`, `result.json`.

    Of several processes that train together the first alone writes.

    Arguments:
        path: of the folder, which is made.
        experiment: what runs in it.
        resume: go on with the run in it, which has to be that of the same experiment.

    Raises FileExistsError where something else lies there, ValueError for another experiment,
    and OSError where nothing can be written.
    """

    def __init__(self, path: Path, experiment: Experiment, resume: bool = False) -> None:
        self.path = Path(path)
        if resume:
            self._check_same(experiment)
        else:
            self._check_free()
            self._begin(experiment)

    @property
    def last(self) -> Path:
        """The checkpoint of the latest moment."""
        return self.path / LAST

    @property
    def best(self) -> Path:
        """The checkpoint of the epoch that is best on the validation data."""
        return self.path / BEST

    def _check_free(self) -> None:
        if self.path.is_dir() and (self.path / CONFIG).exists():
            raise FileExistsError(
                f"A run should have a folder of its own. Found another run in `{self.path}`. Go on "
                f"with it by `--resume {self.path}`, or choose another folder."
            )
        # A run that was killed in its first moment has left a configuration half written.
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} - {f".{CONFIG}.new"}:
            raise FileExistsError(
                f"A run should have a folder of its own. Found other files in `{self.path}`. "
                "Choose another folder."
            )

    def _check_same(self, experiment: Experiment) -> None:
        for name, (there, here) in read_experiment(self.path).differences(experiment).items():
            raise ValueError(
                f"A run goes on with its own configuration. Found `{name} = {there!r}` in "
                f"`{self.path}` and `{name} = {here!r}` here. Leave `{name}` out, or begin a new "
                "run in another folder."
            )

    def _begin(self, experiment: Experiment) -> None:
        try:
            make_folder(self.path)
            write(self.path / CONFIG, {"experiment": experiment.to_json()} | provenance())
        except OSError as error:
            raise OSError(
                f"A run's folder should be one that can be written. Found for `{self.path}`: "
                f"{error.strerror}. Choose another folder."
            ) from error

    def restore_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Make `metrics.jsonl` that of a checkpoint: what was written after it goes."""
        with self._writing() as first:
            if first:
                replace(self.path / METRICS, "".join(map(_line, records)).encode())

    def add_metrics(self, record: Mapping[str, Any]) -> None:
        """One more line, on the disk when this returns."""
        with self._writing() as first:
            if first:
                _append(self.path / METRICS, _line(record))

    def finish(self, result: Mapping[str, Any], predictions: Mapping[str, Tensor]) -> None:
        """Write what came out: the predictions on the test data, then the result."""
        from safetensors.torch import save

        plain = {name: x.detach().cpu().contiguous().clone() for name, x in predictions.items()}
        with self._writing() as first:
            if first:
                replace(self.path / PREDICTIONS, save(plain))
                write(self.path / RESULT, result)

    def keep(self, place: Path, state: Any, finite: Mapping[str, Tensor]) -> None:
        """Write a checkpoint, `last` or `best`; see `checkpoint.save`."""
        with self._writing() as first:
            if first:
                checkpoint.save(place, state, finite)

    @contextmanager
    def _writing(self) -> Iterator[bool]:
        """Whether this process is the one that writes."""
        try:
            yield rank() == 0
        except OSError as error:
            again = f"go on with `--resume {self.path}`"
            way_out = f"When it can be written again, {again}."
            if error.errno in NO_ROOM:
                way_out = f"What was finished is kept: {again} when there is room."
            raise OSError(
                f"A run's folder should be one that can be written. Found for `{self.path}`: "
                f"{error.strerror}. {way_out}"
            ) from error

    def checkpoint(self) -> Any:
        """The state to go on from, or None where the run had not come to its first checkpoint.

        Raises ValueError where it is damaged, or gone.
        """
        selected = checkpoint.exists(self.best)  # its renaming, too, is completed
        if checkpoint.exists(self.last):
            return checkpoint.load(self.last)
        # A run that is killed before its first checkpoint may have written one line; those of older
        # versions the best checkpoint of their first epoch as well.
        later = selected and checkpoint.load(self.best)["epoch"] > 0
        if later or (self.path / RESULT).exists() or len(read_metrics(self.path)) > 1:
            raise ValueError(
                "A run goes on from its last checkpoint. Found results of "
                f"`{self.path}` and no checkpoint: its folder is half deleted. Copy it again, or "
                "train anew in another folder."
            )
        return None


def read_experiment(path: Path) -> Experiment:
    """The experiment of a run's folder.

    Raises FileNotFoundError where no run lies there, ValueError where its description is damaged.
    """
    file = Path(path) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"A run's folder should hold `{CONFIG}`. Found none in `{path}`. Name the folder of a "
            "run, or begin one there with `equivox train --out`."
        )
    return read_json(file, "an experiment", "It is damaged, or of another version.", _experiment)


def read_best(path: Path, epoch: int) -> Any:
    """The balancer's state after the selected epoch of a finished run.

    Raises FileNotFoundError where it is gone, ValueError where it is damaged or another epoch's.
    """
    kept = checkpoint.load(Path(path) / BEST)
    check_best(kept, (epoch,), Path(path), RESULT)
    return kept["balancer"]


def check_best(kept: Any, epochs: Sequence[int], path: Path, told: str | Path) -> None:
    """Refuse a run's best checkpoint of none of these epochs; `told` names the file with theirs."""
    if kept["epoch"] not in epochs:
        raise ValueError(
            f"The best checkpoint should be of epoch {epochs[0]}, as `{path / told}` says. Found "
            f"one of epoch {kept['epoch']} in `{path / BEST}`. The folder was mixed with another "
            "one: train anew."
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a run's epochs so far, up to a line that was cut."""
    file = Path(path) / METRICS
    found: list[dict[str, Any]] = []
    for line in file.read_text("utf-8", "replace").splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _experiment(found: Any) -> Experiment:
    return Experiment.from_json(shaped(found, {"experiment": {}})["experiment"])


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"


# ── where a number comes from ───────────────────────────────────────────────────────────────────


def provenance() -> dict[str, Any]:
    """Versions, commit, machine and command."""
    return {
        "versions": versions(),
        "commit": _commit(),
        "platform": platform.platform(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    return dict(_versions())


@cache
def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for name in ("equivox", "torch", "numpy", "torchmetrics", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _commit() -> str | None:
    """The commit of the code that runs, with `+` where files differ from it; None for a release."""
    here = Path(__file__).parent
    if _git(here, "ls-files", "--error-unmatch", "../method.py") is None:
        return None
    commit = _git(here, "rev-parse", "HEAD")
    changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changed else commit


def _git(where: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(where), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
