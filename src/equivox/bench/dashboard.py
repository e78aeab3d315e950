"""What a comparison is doing: a live table in a terminal, a line for each run elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from equivox.bench.jobs import Job
from equivox.bench.making import Outcome
from equivox.bench.notation import duration
from equivox.bench.pace import Pace

if TYPE_CHECKING:
    from rich.console import RenderableType

FINISHED, FAILED = {"made", "kept"}, {"failed", "lost", "unwritable", "fault"}


class Progress:
    """The runs of a comparison by data set: what runs, what has ended and how, the time left.

    Arguments:
        what: "runs" or "trials".
        jobs: all of them.
        pace: of those that have ended.
        at_once: how many go on at a time.
    """

    def __init__(self, what: str, jobs: Sequence[Job], pace: Pace, at_once: int) -> None:
        self.what = what
        self.pace = pace
        self.at_once = at_once
        self.total = Counter(job.data.label for job in jobs)
        self.ended: dict[str, Counter[str]] = {data: Counter() for data in self.total}
        self.running: dict[str, float] = {}
        self._pending = {str(job): job for job in jobs}

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Take note of one step of `work`."""
        if outcome.what == "begun":
            self.running[str(job)] = time.monotonic()
            return
        self.running.pop(str(job), None)
        self._pending.pop(str(job), None)
        self.ended[job.data.label][outcome.what] += 1

    def count(self, kinds: set[str], data: str | None = None) -> int:
        """How many ended in one of these ways, on one data set or on all."""
        each = self.ended.values() if data is None else [self.ended[data]]
        return sum(counts[kind] for counts in each for kind in kinds)

    def seconds_left(self, data: str | None = None) -> float:
        """Of wall clock, judged by the runs that have ended; NaN where there is none."""
        kinds = Counter(
            (job.data.label, job.method.label)
            for job in self._pending.values()
            if data in (None, job.data.label)
        )
        some = {(job.data.label, job.method.label): job for job in self._pending.values()}
        work = sum(count * self.pace.expected(some[kind]) for kind, count in kinds.items())
        return work / self.at_once

    # ── as text ─────────────────────────────────────────────────────────────────────────────────

    def line(self, job: Job, outcome: Outcome) -> str:
        """What is to be said of an ended run where there is no terminal."""
        ended = sum(sum(counts.values()) for counts in self.ended.values())
        why = f": {outcome.why}" if outcome.why else ""
        left = f", {duration(self.seconds_left())} left" if self._pending else ""
        where = f"{self.what} {ended}/{sum(self.total.values())}{left}"
        return f"{where}: {job}: {outcome.what}{why}"

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        return Group(self._sets(), self._going())

    def _sets(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for head in (self.what, "", "done", "failed", "of", "time left"):
            table.add_column(head, justify="left" if head in (self.what, "") else "right")
        for data, total in self.total.items():
            done, failed = self.count(FINISHED, data), self.count(FAILED, data)
            ended = sum(self.ended[data].values())
            left = duration(self.seconds_left(data)) if ended < total else ""
            bar = ProgressBar(total, ended, width=30)
            table.add_row(data, bar, str(done), str(failed or ""), str(total), left)
        return table

    def _going(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_header=False)
        for name, since in self.running.items():
            table.add_row("running", name, duration(time.monotonic() - since))
        return table


@contextmanager
def shown(progress: Progress) -> Iterator[Callable[[Job, Outcome], None]]:
    """Show the progress while inside; yields what is to be told of every step."""
    if not sys.stderr.isatty():
        yield partial(_print, progress)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(progress, console=Console(stderr=True), refresh_per_second=2):
        yield progress.tell


def _print(progress: Progress, job: Job, outcome: Outcome) -> None:
    progress.tell(job, outcome)
    if outcome.what not in ("begun", "kept", "left"):
        print(progress.line(job, outcome), file=sys.stderr, flush=True)
