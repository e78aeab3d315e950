"""Comparisons: methods x data sets x seeds as folders of runs that can be continued at any moment.

    DIR/runs/<data>/<method>/seed-<n>/          a run, finished when it holds `record.json`
    DIR/search/<data>/<method>/trial-<n>/       a trial of the search
    DIR/search/<data>/<method>/chosen-<k>.json  the best of the first k trials
    DIR/shared/<data>/<key>/                    what several runs would train alike, see `sharing`

The folders are the truth: whatever is not finished there is made, whatever is finished is read.
Several processes, also on several machines with a shared disk, may work on one folder: each run is
under a lock that the system releases when its holder dies.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equivox.bench.experiment import Experiment, assignment
from equivox.bench.files import read_json, shaped
from equivox.bench.folder import CONFIG, PREDICTIONS, read_experiment
from equivox.bench.notation import counted
from equivox.bench.records import FAILED, RECORD

SEARCH_SEED = 10_000
"""Of the trials' trainings: far from the seeds that are reported."""


@dataclass(frozen=True)
class Choice:
    """A data set or a method with options, written `name:option=value:option=value`.

    >>> Choice.parse("ogm_ge:alpha=0.5").label
    'ogm_ge:alpha=0.5'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> Choice:
        """The choice that was written."""
        name, *options = split(text, ":")
        return Choice(name, dict(assignment(option) for option in options))

    @property
    def label(self) -> str:
        """The choice as it is written."""
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def folder(self) -> str:
        """A name for its folder."""
        return re.sub(r"[^\w.=+-]+", "_", self.label)


@dataclass(frozen=True)
class Job:
    """One training: of a data set and a method, with a seed.

    A trial of the search where it has a number, `trial`, and `arguments`; `tuned` is the number of
    trials that chose the hyper-parameters, 0 for the defaults.
    """

    data: Choice
    method: Choice
    seed: int
    epochs: int | None = None
    trial: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tuned: int = 0
    patience: int | None = None

    def __str__(self) -> str:
        tuned = f" tuned by {counted(self.tuned, 'trial')}" if self.tuned else ""
        which = f"seed {self.seed}" if self.trial is None else f"trial {self.trial}"
        return f"{self.data.label}, {self.method.label}{tuned}, {which}"

    def folder(self, out: Path) -> Path:
        """Where it is kept."""
        if self.trial is not None:
            return self.search(out) / f"trial-{self.trial}"
        method = self.method.folder + (f" tuned-{self.tuned}" if self.tuned else "")
        return out / "runs" / self.data.folder / method / f"seed-{self.seed}"

    def search(self, out: Path) -> Path:
        """Where the trials of its method on its data set are kept."""
        return out / "search" / self.data.folder / self.method.folder

    def experiment(self, out: Path) -> Experiment:
        """What to train; FileNotFoundError for a tuned job before its trials are compared."""
        found = self.searched(out) if self.tuned else self.arguments
        return Experiment(
            self.data.name,
            self.method.name,
            self.seed,
            epochs=self.epochs,
            data_options=self.data.options,
            arguments={**found, **self.method.options},
            patience=self.patience,
        )

    def searched(self, out: Path) -> dict[str, Any]:
        """The hyper-parameters that its trials chose; ValueError where that file is damaged."""

        def made(found: Any) -> dict[str, Any]:
            arguments: dict[str, Any] = shaped(found, {"arguments": dict})["arguments"]
            Experiment(self.data.name, self.method.name, arguments=arguments)
            return arguments

        what = f"hyper-parameters of `{self.method.name}`"
        return read_json(chosen(self, out), what, "Delete it: the search chooses again.", made)

    def ended(self, out: Path) -> bool:
        """Whether there is nothing left to do: it is finished, or was refused, or diverged."""
        folder = self.folder(out)
        return (folder / RECORD).exists() or (folder / FAILED).exists()


def split(text: str, separator: str) -> list[str]:
    """The parts between separators, but for those within brackets.

    >>> split("joint,modality_lr:factors={'a': 1, 'b': 2}", ",")
    ['joint', "modality_lr:factors={'a': 1, 'b': 2}"]
    """
    depth, found = 0, [""]
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == separator and not depth:
            found.append("")
        else:
            found[-1] += letter
    return found


def chosen(job: Job, out: Path) -> Path:
    """Where the choice of a tuned job's hyper-parameters is written down."""
    return job.search(out) / f"chosen-{job.tuned}.json"


def run_jobs(
    data: Sequence[Choice],
    methods: Sequence[Choice],
    seeds: int,
    epochs: int | None,
    tuned: int = 0,
    patience: int | None = None,
) -> list[Job]:
    """The reported runs: seed by seed, so that what is finished can be compared."""
    every = itertools.product(data, range(seeds), methods)
    return [Job(d, m, seed, epochs, tuned=tuned, patience=patience) for d, seed, m in every]


def check(job: Job, out: Path) -> None:
    """Refuse what lies in the place of a run and is not, or no longer, that run.

    :raises ValueError: For a run of another configuration, or a finished one of which files were
        deleted that its numbers are read from, and for a damaged choice of hyper-parameters, which
        is no refusal of the method. Nothing is changed.
    """
    folder = job.folder(out)
    if (folder / RECORD).exists():
        for name in (CONFIG, PREDICTIONS):
            if not (folder / name).exists():
                raise ValueError(
                    f"A finished run should hold `{name}`. Found none in `{folder}`: part of it "
                    "was deleted. Put it back, or delete the whole folder, and the run is made "
                    "again."
                )
    if job.tuned:
        job.searched(out)
    if not (folder / CONFIG).exists():
        return
    for name, (there, here) in read_experiment(folder).differences(job.experiment(out)).items():
        raise ValueError(
            f"A comparison's folder should hold one configuration of a run. Found `{name} = "
            f"{there!r}` in `{folder}`, and `{name} = {here!r}` is asked for. Ask for the same, or "
            "compare in another folder: `--out`."
        )
