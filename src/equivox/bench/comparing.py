"""`equivox compare`: makes what is lacking of a comparison, then its tables."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from equivox import methods
from equivox.bench.compare import Choice, Job, choose, run_jobs, search_jobs, work
from equivox.bench.leaderboard import boards, markdown, table
from equivox.errors import nearest


def main(given: argparse.Namespace) -> int:
    """Compare; 0, or 1 where runs broke or another process is still busy with some."""
    data = [Choice.parse(text) for text in given.data.split(",")]
    chosen = _methods(given.methods)
    _check(data)
    given.out.mkdir(parents=True, exist_ok=True)
    problems = []
    if given.search:
        trials = search_jobs(data, chosen, given.search, given.epochs)
        problems += _work("trials", trials, given)
        for d, m in itertools.product(data, chosen):
            choose(given.out, d, m)
    runs = run_jobs(data, chosen, given.seeds, given.epochs, tuned=bool(given.search))
    problems += _work("runs", runs, given)
    print(write(given.out))
    for line in problems:
        print(f"equivox: {line}", file=sys.stderr)
    return 1 if problems else 0


def write(out: Path) -> str:
    """Write `table.md` and `table.csv` of all that is finished in the folder; the former's text."""
    from equivox.bench.folder import replace

    found = boards(out)
    parts = [
        f"## {data}{', tuned' if tuned else ''}\n\n{markdown(board)}"
        for (data, tuned), board in found.items()
    ]
    text = "\n\n".join(parts) + "\n"
    replace(out / "table.md", text.encode())
    replace(out / "table.csv", table(found.values()).encode())
    return text


def _methods(text: str) -> list[Choice]:
    if text == "all":
        return [Choice(name) for name in methods.names()]
    found = [Choice.parse(part) for part in text.split(",")]
    for choice in found:
        methods.get(choice.name)
    return found


def _check(data: Sequence[Choice]) -> None:
    from equivox import data as datasets

    for choice in data:
        if choice.name not in datasets.names():
            raise ValueError(
                f"The data should be known sets. Found `{choice.name}`. "
                + nearest(choice.name, datasets.names())
            )


def _work(what: str, jobs: Sequence[Job], given: argparse.Namespace) -> list[str]:
    """Make the jobs under a progress bar; what went wrong, one line each."""
    problems = []
    with _progress(what, len(jobs)) as bar:
        for made, (job, outcome) in enumerate(work(jobs, given.out, given.jobs), start=1):
            name = f"{job.data.label}, {job.method.label}, seed {job.seed}"
            if outcome not in ("made", "kept"):
                problems.append(f"{name}: {outcome}")
            if bar is not None:
                bar.update(bar.task_ids[0], completed=made, last=name)
    return problems


def _progress(what: str, total: int) -> Any:
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), Remaining())
    progress = Progress(*columns, TextColumn("{task.fields[last]}"), console=Console(stderr=True))
    progress.add_task(what, total=total, last="")
    return progress
