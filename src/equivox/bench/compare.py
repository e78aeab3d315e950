"""Comparisons: methods x data sets x seeds as folders of runs that can be continued at any moment.

    DIR/runs/<data>/<method>/seed-<n>/     a run, finished when it holds `record.json`
    DIR/search/<data>/<method>/trial-<n>/  a trial of the search
    DIR/search/<data>/<method>/chosen-<k>.json  the best of the first k trials

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equivox.bench.experiment import Experiment, assignment
from equivox.bench.schedule import workers

if TYPE_CHECKING:
    from equivox.method import Method

RECORD, FAILED = "record.json", "failed.json"
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
    """One training: of a data set and a method, with a seed.

    A trial of the search where `arguments` are given, the `trial`-th; `tuned` is the number of
    trials that chose the hyper-parameters, 0 for the defaults.
    """

    data: Choice
    method: Choice
    seed: int
    epochs: int | None = None
    trial: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tuned: int = 0

    def folder(self, out: Path) -> Path:
        """Where it is kept."""
        if self.trial is not None:
            return _trials(out, self.data, self.method) / f"trial-{self.trial}"
        method = self.method.folder + (f" tuned-{self.tuned}" if self.tuned else "")
        return out / "runs" / self.data.folder / method / f"seed-{self.seed}"

    def experiment(self, out: Path) -> Experiment:
        """What to train; FileNotFoundError for a tuned job before `choose`."""
        found = self.arguments
        if self.tuned:
            found = json.loads(_chosen(out, self).read_bytes())["arguments"]
        return Experiment(
            self.data.name,
            self.method.name,
            self.seed,
            epochs=self.epochs,
            data_options=self.data.options,
            arguments={**found, **self.method.options},
        )


def trials(method: type[Method], modalities: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The hyper-parameters of a search: the defaults, then draws from the method's space.

    Always in the same order, without repetition, and fewer than `count` where there are fewer.
    """
    space = method.space(modalities)
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    random.Random(0).shuffle(every)
    return [{}, *(point for point in every if point)][:count]


def search_jobs(
    data: Sequence[Choice], methods: Sequence[Choice], count: int, epochs: int | None
) -> list[Job]:
    """The trials of every method on every data set."""
    from equivox.methods import get

    jobs = []
    for d in data:
        modalities = Experiment(d.name, data_options=d.options).load().modalities
        for m in methods:
            points = trials(get(m.name), modalities, count)
            jobs += [
                Job(d, m, SEARCH_SEED, epochs, trial=number, arguments=point)
                for number, point in enumerate(points)
            ]
    return jobs


def run_jobs(
    data: Sequence[Choice],
    methods: Sequence[Choice],
    seeds: int,
    epochs: int | None,
    tuned: int = 0,
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
    from equivox.bench.folder import CONFIG, LAST, write
    from equivox.bench.training import train

    resume = (folder / CONFIG).exists()
    if not resume and folder.exists():
        shutil.rmtree(folder)  # cut off before it had begun
    try:
        experiment = job.experiment(out)
        result = train(experiment, folder, resume=resume)
    except (FloatingPointError, ValueError, TypeError) as error:
        # It diverged, or was refused. What comes later, such as a damaged checkpoint, is a fault.
        if not isinstance(error, FloatingPointError) and (folder / LAST).exists():
            raise
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / FAILED, _names(job) | {"error": str(error), "kind": type(error).__name__})
        return
    found = _record(result, folder) if job.trial is None else {}
    monitor = result.balancer.task.monitor if result.balancer else "loss"
    facts = {"metric": monitor, "validation": worth(result.best["validation"], monitor)}
    write(folder / RECORD, _names(job) | facts | found | {"arguments": dict(experiment.arguments)})


def _names(job: Job) -> dict[str, Any]:
    names = {"data": job.data.label, "method": job.method.label, "seed": job.seed}
    return names | {"tuned": job.tuned, "trial": job.trial}


def _record(result: Any, folder: Path) -> dict[str, Any]:
    """What is reported of a run: the selected epoch's metrics, the last one's probes, the cost."""
    from equivox.bench import checkpoint
    from equivox.bench.folder import BEST
    from equivox.bench.measure import MOST_MODALITIES, contributions, probes
    from equivox.functional.shapley import imbalance
    from equivox.task import Dense

    balancer, data = result.balancer, result.experiment.load()
    whole = {s: data.loader(s, batch_size=4096, shuffle=False) for s in ("train", "test")}
    found: dict[str, Any] = {"probe": {}}
    if not isinstance(balancer.task, Dense):
        found["probe"] = probes(balancer, whole["train"], whole["test"], logistic=True)
    if len(data.modalities) <= MOST_MODALITIES:
        balancer.load_state_dict(checkpoint.load(folder / BEST)["balancer"])
        phi = contributions(balancer, whole["test"])
        unequal = imbalance({m: torch.tensor(x) for m, x in phi.items()})
        found |= {"contribution": phi, "imbalance": float(unequal.absolute)}
    return found | {
        "epoch": result.best["epoch"],
        "test": result.best["test"],
        "last": {key: result.last[key] for key in ("test", "branches", "unimodal")},
        "seconds": result.seconds,
        "parameters": dict(result.parameters),
        "fingerprint": result.protocol["fingerprint"],
    }


def worth(metrics: Mapping[str, float], monitor: str) -> float:
    """The metric that methods are compared by, the larger the better."""
    return -metrics[monitor] if monitor == "loss" else metrics[monitor]


def _ended(folder: Path) -> bool:
    return (folder / RECORD).exists() or (folder / FAILED).exists()


def work(jobs: Sequence[Job], out: Path, processes: int) -> Iterator[tuple[Job, str]]:
    """Make all jobs on several processes of one thread each; yields each with its outcome.

    The outcome is that of `make`, or the text of an error. The folders keep what is done.
    """
    waiting = []
    for job in jobs:
        if _ended(job.folder(out)):
            yield job, "kept"
        else:
            waiting.append(job)
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


def choose(out: Path, jobs: Sequence[Job], count: int) -> None:
    """Write down which of a method's trials on a data set was the best on the validation data.

    :param jobs: The trials, of one method and one data set.
    :raises ValueError: Where one of them is not finished: another process is at it, or it broke.
    """
    from equivox.bench.folder import write

    for job in jobs:
        if not _ended(job.folder(out)):
            raise ValueError(
                f"All trials should be finished before one is chosen. Found `{job.folder(out)}` "
                "unfinished. Run the same command again."
            )
    paths = [job.folder(out) / RECORD for job in jobs]
    found = [json.loads(path.read_bytes()) for path in paths if path.exists()]
    # Where all diverged, the runs will show it with the defaults.
    best: dict[str, Any] = max(
        found, key=lambda record: record["validation"], default={"arguments": {}}
    )
    write(_chosen(out, replace(jobs[0], tuned=count)), {"trials": len(jobs), **best})


def _chosen(out: Path, job: Job) -> Path:
    return _trials(out, job.data, job.method) / f"chosen-{job.tuned}.json"


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
