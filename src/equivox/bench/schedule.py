"""Trainings on several processes, seed by seed, within a budget of wall clock."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from equivox.bench.comparison import Run

WORKERS = 2
GRACE = 1.1
"""How far beyond the budget a seed may go on that was expected to end within it."""
PATIENCE = 10.0
"""Seconds for a training that was asked to end, before its process is killed."""


@dataclass(frozen=True)
class Job:
    """One training to make."""

    data: str
    method: str
    seed: int


@dataclass(frozen=True)
class Finished:
    """The runs of whole seeds, and why there are no more: `stopped` is empty where all ran."""

    runs: Sequence[Run]
    seeds: int
    wanted: int
    seconds: float
    stopped: str = ""

    @property
    def shortened(self) -> str:
        """A sentence on the seeds that are lacking; empty where none is."""
        if self.seeds == self.wanted:
            return ""
        return f"{self.seeds} of {self.wanted} seeds, for {self.stopped}."


class Schedule:
    """Seeds one after another, each a full set of jobs, within a budget of wall clock.

    A seed begins only if it should end within the budget, judged by those before it. The first one
    always runs to its end; a later one that goes on a tenth beyond the budget is left out.

    :param jobs: Of one seed, by (data, method).
    :param seeds: How many are wanted.
    :param budget: In seconds.
    """

    def __init__(self, jobs: Sequence[tuple[str, str]], seeds: int, budget: float) -> None:
        self.jobs = jobs
        self.seeds = seeds
        self.budget = budget
        self.done: list[Run] = []
        self.begun: list[float] = []
        self._ended: Counter[int] = Counter()
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the schedule was made."""
        return time.monotonic() - self._start

    @property
    def whole(self) -> list[int]:
        """The seeds of which every run is finished."""
        return [seed for seed in range(self.seeds) if self._ended[seed] == len(self.jobs)]

    def affords(self, seed: int) -> bool:
        """Whether this seed, the next to begin, should end within the budget."""
        if seed < 2:  # the first one holds the start of the workers
            return seed == 0 or 2 * self.elapsed <= self.budget
        each = (self.elapsed - self.begun[1]) / (seed - 1)
        return self.elapsed + each <= self.budget

    def work(
        self, executor: Executor, make: Callable[[Job], Sequence[Run]]
    ) -> Iterator[Sequence[Run]]:
        """The runs as they finish: those of one job, the job's own first."""
        waiting = self._waiting()
        running = {executor.submit(make, job) for job in _next(waiting, WORKERS + 1)}
        while running and not (self.elapsed > GRACE * self.budget and self.whole):
            ended, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in ended:
                runs = future.result()
                self.done += runs
                self._ended[runs[0].seed] += 1
                yield runs
            running |= {executor.submit(make, job) for job in _next(waiting, len(ended))}

    def _waiting(self) -> Iterator[Job]:
        for seed in range(self.seeds):
            if not self.affords(seed):
                return
            self.begun.append(self.elapsed)
            for data, method in self.jobs:
                yield Job(data, method, seed)

    def finished(self, stopped: str = "") -> Finished:
        """What is finished now: whole seeds alone."""
        seeds = self.whole
        runs = [run for run in self.done if run.seed in seeds]
        if not stopped and len(seeds) < self.seeds:
            stopped = f"the budget of {self.budget:.0f} s allows no more on this machine"
        return Finished(runs, len(seeds), self.seeds, self.elapsed, stopped)


def _next(jobs: Iterator[Job], count: int) -> list[Job]:
    return [job for _, job in zip(range(count), jobs, strict=False)]


@contextmanager
def workers(count: int = WORKERS) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each to work in; none is left behind, however it ends."""
    before = set(multiprocessing.active_children())
    executor = pool(count)
    try:
        yield executor
    finally:
        end([executor], set(multiprocessing.active_children()) - before)


def pool(count: int, cores: Sequence[int] = (), threads: int = 1) -> ProcessPoolExecutor:
    """Processes that end with this one, and leave Ctrl-C to it.

    :param cores: To which they are bound where the system can do it; to none where empty.
    :param threads: Of each.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        count, mp_context=context, initializer=_start, initargs=(tuple(cores), threads)
    )


def end(pools: Iterable[ProcessPoolExecutor], processes: Iterable[BaseProcess]) -> None:
    """End pools and their processes, whatever is running in them.

    A process is asked first, so that a training can write its checkpoint, then killed.
    """
    pools, processes = list(pools), list(processes)
    for process in processes:
        process.terminate()
    for each in pools:  # a training that was asked to end leaves its process waiting for more
        each.shutdown(wait=False, cancel_futures=True)
    last = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, last - time.monotonic()))
        if process.is_alive():
            process.kill()
    for each in pools:
        each.shutdown(wait=True)


def _start(cores: Sequence[int], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
