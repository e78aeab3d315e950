"""How long runs take, and until when one may begin."""

from __future__ import annotations

import math
import time
from pathlib import Path
from statistics import fmean

from equivox.bench.jobs import Job
from equivox.bench.records import FAILED, RECORD, read


class Pace:
    """The wall clock that runs took, by data set and method, and the end of a budget.

    Arguments:
        budget: seconds from now; without limit where None.
    """

    def __init__(self, budget: float | None = None) -> None:
        self.ends = math.inf if budget is None else time.time() + budget
        self._walls: dict[str, dict[str, list[float]]] = {}

    def note(self, job: Job, out: Path) -> None:
        """Read how long an ended run took; ValueError where its record is damaged."""
        folder = job.folder(out)
        path = folder / RECORD if (folder / RECORD).exists() else folder / FAILED
        if path.exists():
            found = read(path, {})
            wall = found.get("wall", found.get("seconds", 0.0))  # older records lack it
            methods = self._walls.setdefault(job.data.label, {})
            methods.setdefault(job.method.label, []).append(wall)

    def latest(self, job: Job) -> float:
        """The last moment (of `time.time`) at which it may begin to end within the budget."""
        return self.ends - max(self._known(job), default=0.0)

    def expected(self, job: Job) -> float:
        """The seconds that it should take; NaN where none was made on its data set."""
        known = self._known(job)
        return fmean(known) if known else math.nan

    def stop(self) -> None:
        """Let nothing more begin."""
        self.ends = -math.inf

    def _known(self, job: Job) -> list[float]:
        """Of runs of the same method; where there is none, of all on the same data set."""
        methods = self._walls.get(job.data.label, {})
        return methods.get(job.method.label) or [wall for each in methods.values() for wall in each]
