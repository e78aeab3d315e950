"""The trainings of the demonstration, seed by seed, within a budget of wall clock."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from dataclasses import dataclass

from equivox.demo.comparison import Run

WORKERS = 2
GRACE = 1.1
"""How far beyond the budget a seed may go on that was expected to end within it."""


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
