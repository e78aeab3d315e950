"""Comparisons: methods x data sets x seeds as folders of runs that can be continued at any moment.

    DIR/runs/<data>/<method>/seed-<n>/     a run, finished when it holds `record.json`
    DIR/search/<data>/<method>/trial-<n>/  a trial of the search, and `chosen.json` beside them

The folders are the truth: whatever is not finished there is made, whatever is finished is read.
Several processes, also on several machines with a shared disk, may work on one folder: each run is
under a lock that the system releases when its holder dies.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equivox.bench.experiment import Experiment
from equivox.bench.schedule import workers

RECORD, CHOSEN, FAILED = "record.json", "chosen.json", "failed.json"
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
        from equivox.bench.experiment import assignment

        name, *options = text.split(":")
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
    """One training: of a data set and a method, with a seed; a trial where `trial` is given."""

    data: Choice
    method: Choice
    seed: int
    epochs: int | None = None
    trial: int | None = None
    tuned: bool = False

    def folder(self, out: Path) -> Path:
        """Where it is kept."""
        if self.trial is not None:
            return _trials(out, self.data, self.method) / f"trial-{self.trial}"
        method = self.method.folder + (" tuned" if self.tuned else "")
        return out / "runs" / self.data.folder / method / f"seed-{self.seed}"

    def experiment(self, out: Path) -> Experiment:
        """What to train; ValueError for a tuned job whose search is not finished."""
        found: Mapping[str, Any] = {}
        if self.trial is not None:
            found = trials(self.method.name, self.trial + 1)[self.trial]
        if self.tuned:
            found = _chosen(out, self.data, self.method)["arguments"]
        return Experiment(
            self.data.name,
            self.method.name,
            self.seed,
            epochs=self.epochs,
            data_options=self.data.options,
            arguments={**found, **self.method.options},
        )


def trials(method: str, count: int) -> list[dict[str, Any]]:
    """The hyper-parameters of a search: the defaults, then draws from the declared space.

    The same for every seed, without repetition, and fewer than `count` where the space is smaller.
    """
    from equivox import methods

    space = methods.get(method).search_space
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    random.Random(0).shuffle(every)
    defaults: dict[str, Any] = {}
    return [defaults, *(point for point in every if point)][:count]


def search_jobs(
    data: Sequence[Choice], methods: Sequence[Choice], count: int, epochs: int | None
) -> list[Job]:
    """The trials of every method on every data set."""
    return [
        Job(d, m, SEARCH_SEED, epochs, trial=number)
        for d, m in itertools.product(data, methods)
        for number in range(len(trials(m.name, count)))
    ]


def run_jobs(
    data: Sequence[Choice],
    methods: Sequence[Choice],
    seeds: int,
    epochs: int | None,
    tuned: bool = False,
) -> list[Job]:
    """The reported runs: seed by seed, so that what is finished can be compared."""
    every = itertools.product(data, range(seeds), methods)
    return [Job(d, m, seed, epochs, tuned=tuned) for d, seed, m in every]


# ── a run ───────────────────────────────────────────────────────────────────────────────────────


def make(job: Job, out: Path) -> str:
    """Make a run, or the rest of it: "made", "kept" where it was finished, "busy" elsewhere."""
    from filelock import FileLock, Timeout

    folder = job.folder(out)
    if _ended(folder):
        return "kept"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.parent / f".{folder.name}.lock", timeout=0):
            if not _ended(folder):
                _make(job, out, folder)
                return "made"
            return "kept"
    except Timeout:
        return "busy"


def _make(job: Job, out: Path, folder: Path) -> None:
    from equivox.bench.folder import CONFIG, write
    from equivox.bench.training import train

    resume = (folder / CONFIG).exists()
    if not resume and folder.exists():
        shutil.rmtree(folder)  # cut off before it had begun
    try:
        experiment = job.experiment(out)
        result = train(experiment, folder, resume=resume)
    except (FloatingPointError, ValueError, TypeError) as error:  # it diverged, or was refused
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / FAILED, _names(job) | {"error": str(error), "kind": type(error).__name__})
        return
    if job.trial is None:
        record = _names(job) | _record(result, folder)
    else:
        record = _names(job) | {"validation": worth(result.best["validation"])}
    write(folder / RECORD, record | {"arguments": dict(experiment.arguments)})


def _names(job: Job) -> dict[str, Any]:
    names = {"data": job.data.label, "method": job.method.label, "seed": job.seed}
    return names | {"tuned": job.tuned, "trial": job.trial}


def _record(result: Any, folder: Path) -> dict[str, Any]:
    """What is reported of a run: the selected epoch's metrics, the last one's probes, the cost."""
    from equivox.bench import checkpoint
    from equivox.bench.measure import MOST_MODALITIES, measure, probes
    from equivox.task import Dense

    balancer, data = result.balancer, result.experiment.load()
    whole = {s: data.loader(s, batch_size=4096, shuffle=False) for s in ("train", "test")}
    read = (
        {}
        if isinstance(balancer.task, Dense)
        else probes(balancer, whole["train"], whole["test"], logistic=True)
    )
    balancer.load_state_dict(checkpoint.load(folder / "checkpoints" / "best")["balancer"])
    measured = {}
    if len(data.modalities) <= MOST_MODALITIES and read:
        found = measure(balancer, whole["train"], whole["test"])
        measured = {"contribution": found.contribution, "imbalance": found.imbalance}
    return {
        "epoch": result.best["epoch"],
        "validation": worth(result.best["validation"]),
        "test": result.best["test"],
        "last": {key: result.last[key] for key in ("test", "branches", "unimodal")},
        "probe": read,
        **measured,
        "seconds": result.seconds,
        "parameters": dict(result.parameters),
        "fingerprint": result.protocol["fingerprint"],
    }


def worth(metrics: Mapping[str, float]) -> float:
    """The metric that methods are compared by: accuracy, R2, or what the task's first is."""
    return next(value for name, value in metrics.items() if name != "loss")


def _ended(folder: Path) -> bool:
    return (folder / RECORD).exists() or (folder / FAILED).exists()


def work(jobs: Sequence[Job], out: Path, processes: int) -> Iterator[tuple[Job, str]]:
    """Make all jobs on several processes of one thread each; yields each with its outcome.

    The outcome is that of `make`, or the text of an error. The folders keep what is done.
    """
    waiting = [job for job in jobs if not _ended(job.folder(out))]
    if not waiting:
        return
    with workers(processes) as executor:
        running = {executor.submit(make, job, out): job for job in waiting}
        for future in as_completed(running):
            error = future.exception()
            outcome = future.result() if error is None else f"{type(error).__name__}: {error}"
            yield running[future], outcome


# ── the search's choice ─────────────────────────────────────────────────────────────────────────


def _trials(out: Path, data: Choice, method: Choice) -> Path:
    return out / "search" / data.folder / method.folder


def choose(out: Path, data: Choice, method: Choice) -> None:
    """Write down which finished trial was the best on the validation data."""
    from equivox.bench.folder import write

    folder = _trials(out, data, method)
    found = [json.loads(path.read_bytes()) for path in sorted(folder.glob(f"trial-*/{RECORD}"))]
    if not found:  # all diverged: the runs will say so with the defaults
        found = [{"arguments": {}, "validation": None}]
    best = max(found, key=lambda record: record["validation"])
    made = len(list(folder.glob(f"trial-*/{FAILED}"))) + len(found)
    write(folder / CHOSEN, {"trials": made, **best})


def _chosen(out: Path, data: Choice, method: Choice) -> dict[str, Any]:
    path = _trials(out, data, method) / CHOSEN
    chosen: dict[str, Any] = json.loads(path.read_bytes())
    return chosen


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def records(out: Path) -> Iterator[dict[str, Any]]:
    """The records of all finished runs, in the order of their folders."""
    for path in sorted(out.glob(f"runs/*/*/*/{RECORD}")):
        try:
            yield json.loads(path.read_bytes()) | {"folder": str(path.parent.relative_to(out))}
        except ValueError as error:
            raise ValueError(
                f"`{path}` should hold a record. Found: {error}. Delete it: its run is measured "
                "again from its checkpoint."
            ) from error
