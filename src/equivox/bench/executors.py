"""Where the runs of a comparison are made: processes on this machine, or a cluster's scheduler.

An executor is handed whole runs, never parts of one, and tells of each whether it runs, whether it
is done and what came out. `room` is how many it takes at a time, `pause` the seconds between two
looks at them.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from equivox.bench.processes import end, pool
from equivox.errors import nearest

Make = Callable[..., Any]


class Lost(Exception):
    """The process of a run ended without an answer: it was killed, or its machine was lost."""


class Task(Protocol):
    """A run that was handed over."""

    def running(self) -> bool:
        """Whether it has begun."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def result(self) -> Any:
        """What it returned; raises Lost where its process ended without an answer."""


class Executor(Protocol):
    """Where runs are made."""

    pause: float

    @property
    def room(self) -> int:
        """How many it takes at a time."""

    def submit(self, make: Make, runs: Sequence[tuple[Any, ...]]) -> Sequence[Task]:
        """Hand over a batch of calls of `make`, by their arguments."""


# ── processes on this machine ───────────────────────────────────────────────────────────────────


@contextmanager
def local(processes: int) -> Iterator[Executor]:
    """Processes on this machine, each bound to its share of the cores, with a thread for each.

    `OMP_NUM_THREADS` bounds the threads. Where there are more processes than cores, each has one
    thread and none is bound. A process that dies takes its own run with it and no other; the next
    run gets a new one.
    """
    before = set(multiprocessing.active_children())
    executor = _Local(processes)
    try:
        yield executor
    finally:
        pools = [place.pool for place in executor.places]
        end(pools, set(multiprocessing.active_children()) - before)


class _Local:
    pause = 0.02

    def __init__(self, processes: int) -> None:
        self.room = processes
        self.places = [_Place(share) for share in shares(cores(), processes)]

    def submit(self, make: Make, runs: Sequence[tuple[Any, ...]]) -> Sequence[Task]:
        free = [place for place in self.places if place.free]
        return [place.begin(make, run) for place, run in zip(free, runs, strict=False)]


class _Place:
    """One process at a time, with its cores."""

    def __init__(self, cores: Sequence[int]) -> None:
        most = int(os.environ.get("OMP_NUM_THREADS") or len(cores))
        self._new = partial(pool, 1, cores, threads=max(1, min(len(cores), most)))
        self.pool = self._new()
        self._future: Future[Any] | None = None

    @property
    def free(self) -> bool:
        return self._future is None or self._future.done()

    def begin(self, make: Make, run: tuple[Any, ...]) -> Task:
        try:
            self._future = self.pool.submit(make, *run)
        except BrokenProcessPool:
            self.pool = self._new()
            self._future = self.pool.submit(make, *run)
        return _Call(self._future)


class _Call:
    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def running(self) -> bool:
        return not self._future.done()

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> Any:
        try:
            return self._future.result()
        except BrokenProcessPool as error:
            raise Lost("its process ended without an answer") from error


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares(cores: Sequence[int], processes: int) -> list[list[int]]:
    """The cores of each process; none where there are fewer than processes.

    >>> shares([0, 1, 2, 3, 4], 2), shares([0, 1], 3)
    ([[0, 1], [2, 3]], [[], [], []])
    """
    each = len(cores) // processes
    return [list(cores[n * each : (n + 1) * each]) for n in range(processes)]


# ── a cluster's scheduler ───────────────────────────────────────────────────────────────────────

ARRAY = 500
"""Runs that are handed to a scheduler as one array; schedulers take up to 1,000 by default."""
PARAMETERS = {"timeout_min": 240}
"""What a run is given where nothing else is asked for; Slurm's own word for it is `time`."""


@contextmanager
def submitted(
    folder: Path, at_once: int, parameters: Mapping[str, Any] | None = None
) -> Iterator[Executor]:
    """A cluster's scheduler, by `submitit`; what is waiting or running at the end is cancelled.

    :param folder: Of `submitit`'s own files, on a disk that all machines share.
    :param at_once: How many runs may go on at a time.
    :param parameters: Of the scheduler, such as `partition`, `time`, `cpus_per_task`, `mem`;
        `cluster="local"` runs them on this machine.
    :raises ValueError: Without the extra `cluster`, and for parameters that the scheduler does not
        have, with the nearest.
    """
    executor = _Submitted(folder, at_once, dict(parameters or {}))
    try:
        yield executor
    finally:
        for job in executor.jobs:
            if not job.done():
                job.cancel(check=False)


class _Submitted:
    def __init__(self, folder: Path, at_once: int, parameters: dict[str, Any]) -> None:
        submitit = _submitit()
        cluster = parameters.pop("cluster", None)
        executor = submitit.AutoExecutor(folder=folder.resolve(), cluster=cluster)
        here = executor.cluster == "local"
        self._at_once = at_once if here else None
        self.pause = 0.2 if here else 5.0
        self.jobs: list[Any] = []
        self._executor = executor
        limits = {} if here else {"array_parallelism": at_once}
        executor.update_parameters(**_named(submitit, PARAMETERS | limits | parameters))

    @property
    def room(self) -> int:
        """A scheduler's array bounds its own runs alone: the next one waits for its end."""
        if self._at_once is not None:
            return self._at_once
        return 0 if any(not job.done() for job in self.jobs) else ARRAY

    def submit(self, make: Make, runs: Sequence[tuple[Any, ...]]) -> Sequence[Task]:
        with self._executor.batch():  # an array
            jobs = [self._executor.submit(make, *run) for run in runs]
        self.jobs = [job for job in self.jobs if not job.done()] + jobs
        return [_Submission(job) for job in jobs]


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ValueError(
            "A cluster's scheduler is reached by the package `submitit`. Found none. Install it by "
            '`pip install "equivox[cluster]"`.'
        ) from error
    return submitit


def _named(submitit: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as `submitit` spells them: with the scheduler's name where they are its own."""
    shared = submitit.AutoExecutor._valid_parameters()
    slurm = submitit.SlurmExecutor._valid_parameters()
    for name in parameters:
        if name not in shared | slurm:
            raise ValueError(
                f"Parameters should be those of the scheduler. Found `{name}`. "
                f"{nearest(name, shared | slurm | {'cluster'})}"
            )
    return {name if name in shared else f"slurm_{name}": x for name, x in parameters.items()}


class _Submission:
    def __init__(self, job: Any) -> None:
        self._job = job

    def running(self) -> bool:
        return bool(self._job.state == "RUNNING")

    def done(self) -> bool:
        return bool(self._job.done())

    def result(self) -> Any:
        import submitit

        try:
            return self._job.result()
        except submitit.core.utils.FailedJobError:
            raise
        except submitit.core.utils.UncompletedJobError as error:
            raise Lost(f"the scheduler's job {self._job.job_id} ended without an answer") from error
