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
from equivox.bench.experiment import Experiment
from equivox.bench.leaderboard import boards, markdown, table


def main(given: argparse.Namespace) -> int:
    """Compare; 0, or 1 where runs broke or another process is still busy with some."""
    data = [Choice.parse(text) for text in given.data.split(",")]
    chosen = _methods(given.methods)
    _check(data, chosen)
    given.out.mkdir(parents=True, exist_ok=True)
    problems = []
    if given.search:
        trials = search_jobs(data, chosen, given.search, given.epochs)
        problems += _work("trials", trials, given)
        for _, group in itertools.groupby(trials, key=lambda job: (job.data, job.method)):
            choose(given.out, list(group), given.search)
    runs = run_jobs(data, chosen, given.seeds, given.epochs, tuned=given.search or 0)
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
        f"## {data}{f', tuned by {tuned} trials' if tuned else ''}\n\n{markdown(board)}"
        for (data, tuned), board in found.items()
    ]
    text = "\n\n".join(parts) + "\n"
    replace(out / "table.md", text.encode())
    replace(out / "table.csv", table(found.values()).encode())
    return text


def _methods(text: str) -> list[Choice]:
    found: list[Choice] = []
    for part in text.split(","):
        found += map(Choice, methods.names()) if part == "all" else [Choice.parse(part)]
    return found


def _check(data: Sequence[Choice], chosen: Sequence[Choice]) -> None:
    """Refuse unknown names and arguments before the first run."""
    for choice in data:
        Experiment(choice.name, data_options=choice.options).load()
    for choice in chosen:
        Experiment(data[0].name, choice.name, arguments=choice.options)


def _work(what: str, jobs: Sequence[Job], given: argparse.Namespace) -> list[str]:
    """Make the jobs under a progress bar, a line each elsewhere; what went wrong, one line each."""
    problems = []
    with _progress(what, len(jobs)) as bar:
        for made, (job, outcome) in enumerate(work(jobs, given.out, given.jobs), start=1):
            name = f"{job.data.label}, {job.method.label}, seed {job.seed}"
            if outcome not in ("made", "kept"):
                problems.append(f"{name}: {outcome}")
            if bar is not None:
                bar.update(bar.task_ids[0], completed=made, last=name)
            elif outcome != "kept":
                print(f"{what} {made}/{len(jobs)}: {name}: {outcome}", file=sys.stderr)
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
