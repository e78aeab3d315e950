"""The costs of a comparison: `DIR/cost/<data>/<method>/record.json`, each measured once, for all
seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from equivox.bench.cost import UNKNOWN, Cost, measure
from equivox.bench.files import read_json, shaped, write
from equivox.bench.folder import versions
from equivox.bench.jobs import Choice, Job
from equivox.bench.records import FAILED, RECORD


@dataclass(frozen=True)
class Measuring(Job):
    """The measuring of what a batch costs, of a method on a data set."""

    def __str__(self) -> str:
        return f"{self.data.label}, {self.method.label}"

    def folder(self, out: Path) -> Path:
        """Where it is kept."""
        return out / "cost" / self.data.folder / self.method.folder


def cost_jobs(
    data: Sequence[Choice], methods: Sequence[Choice], epochs: int | None
) -> list[Measuring]:
    """What is to be measured: every method on every data set, by its default hyper-parameters."""
    return [Measuring(d, m, 0, epochs) for d in data for m in methods]


def make_cost(job: Job, out: Path) -> str:
    """Measure what a batch costs.

    Returns "made", "kept" where it was measured before, "failed" where the method is refused or
    diverges, which the folder tells, or "busy" where another process is at it.
    """
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    names = {"data": job.data.label, "method": job.method.label, "epochs": job.epochs}
    start = time.perf_counter()
    try:
        with FileLock(folder / ".lock", timeout=0):
            if job.ended(out):
                return "kept"
            try:
                found = asdict(measure(job.experiment(out)))
            except (FloatingPointError, ValueError, TypeError) as error:
                write(folder / FAILED, names | {"error": str(error)})
                return "failed"
            wall = {"wall": time.perf_counter() - start, "versions": versions()}
            write(folder / RECORD, names | found | wall)
            return "made"
    except Timeout:
        return "busy"


def costs(out: Path) -> dict[str, dict[str, Cost]]:
    """What was measured, by data set and method.

    :raises ValueError: For a file that is damaged.
    """
    found: dict[str, dict[str, Cost]] = {}
    for path in sorted(out.glob(f"cost/*/*/{RECORD}")):
        one = read_json(path, "a cost", "Delete it: it is measured again.", _cost)
        found.setdefault(one["data"], {})[one["method"]] = Cost(
            *(float(one[name]) for name in asdict(UNKNOWN))
        )
    return found


def _cost(found: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(asdict(UNKNOWN), float)
    return dict(shaped(found, {"data": str, "method": str, **numbers}))
