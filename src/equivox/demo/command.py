"""The demonstration: an imbalance, what it costs, what cures it, and a case without one.

Two data sets on which joint training neglects an encoder, and a control on which there is nothing
to cure. Each seed is one full set of runs, so that whatever is finished can be compared seed by
seed; work ends with the seeds, the time or Ctrl-C, and what is finished is reported.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivox.bench.processes import workers
from equivox.demo.cases import CASES, JOBS, METHODS, SIMPLEST, YARDSTICKS, Case, run
from equivox.demo.comparison import MARGIN, Comparison, Run
from equivox.demo.findings import cells, diagnosis, explanation, header, label, outcome, verdict
from equivox.demo.seeds import WORKERS, Finished, Schedule

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = "it was interrupted"


# ── all of them, under a live display ───────────────────────────────────────────────────────────


def gather(seeds: int, budget: float, console: Console) -> Finished:
    """Do the work; Ctrl-C or a failure ends it with what is finished."""
    schedule = Schedule(JOBS, seeds, budget)
    stopped = ""
    try:
        with workers(WORKERS) as executor, _display(schedule, console) as shown:
            for finished in schedule.work(executor, run):
                shown(finished)
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    except Exception as error:
        if not schedule.whole:
            raise
        stopped = f"a run failed: {type(error).__name__}: {error}"
    return schedule.finished(stopped)


@contextmanager
def _display(schedule: Schedule, console: Console) -> Iterator[Callable[[Sequence[Run]], None]]:
    """Bars in a terminal, one line a seed elsewhere."""
    if not console.is_terminal:
        yield lambda runs: _tell(schedule, runs[0], console)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed())
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=console) as progress:
        bars = [
            progress.add_task(f"seed {seed}", total=len(JOBS), last="", start=seed == 0)
            for seed in range(schedule.seeds)
        ]

        def shown(runs: Sequence[Run]) -> None:
            run = runs[0]
            for bar in bars[: len(schedule.begun)]:
                progress.start_task(bar)
            last = f"{run.data}, {label(run.row)}: {run.test.metric:.3f}"
            progress.update(bars[run.seed], advance=1, last=last)

        yield shown


def _tell(schedule: Schedule, run: Run, console: Console) -> None:
    if run.seed in schedule.whole:
        console.print(f"seed {run.seed}: {len(JOBS)} trainings, {schedule.elapsed:.0f} s so far")


# ── the report ──────────────────────────────────────────────────────────────────────────────────

LOOP = """\
import equivox as ev

model = ev.Multimodal({"audio": audio_net, "video": video_net},
                      ev.Concat({"audio": 512, "video": 512}, classes))
balancer = ev.Balancer(model, ev.%s(), task=ev.Classification())
optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=1e-2))
for epoch in range(epochs):
    for inputs, target in balancer.epoch(loader):   # inputs: {"audio": ..., "video": ...}
        loss = balancer(inputs, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()"""


def show(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print the tables and what they say."""
    for comparison, case in zip(comparisons, CASES, strict=True):
        console.print(f"\n{case.data}: {case.about}\n", markup=False)
        console.print(_table(comparison, console), soft_wrap=False)
        said = (*diagnosis(comparison), verdict(comparison), outcome(comparison, METHODS))
        console.print("\n".join("- " + line for line in said if line), markup=False)
    console.print("\n" + "\n".join(explanation(comparisons[0])), markup=False)


def _table(comparison: Comparison, console: Console) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for number, head in enumerate(header()):
        table.add_column(
            head, justify="right" if number else "left", no_wrap=not console.is_terminal
        )
    for name in comparison.runs:
        table.add_row(*cells(comparison, name))
    return table


def main(arguments: argparse.Namespace) -> int:
    """Run the demonstration: `seeds`, `budget` in seconds, and `out`, the folder of the page.

    Returns 0; 1 where the page cannot be written or a run failed; 130 after Ctrl-C.
    """
    from rich.console import Console

    plain = not sys.stdout.isatty()
    console = Console(highlight=False, soft_wrap=plain, width=120 if plain else None)
    folder = Path(arguments.out)
    try:
        _check_writable(folder)
    except OSError as error:
        print(
            f"The page needs a folder that can be written. Found `{folder}`: {error}. "
            "Choose another with `--out`.",
            file=sys.stderr,
        )
        return 1
    console.print(
        f"{len(JOBS)} trainings a seed on {', '.join(case.data for case in CASES)}; "
        f"{arguments.seeds} seeds, at most about {arguments.budget:.0f} s. A joint network of "
        "each is diagnosed. Ctrl-C keeps the seeds that are finished."
    )
    return _report(gather(arguments.seeds, arguments.budget, console), folder, console)


def _report(finished: Finished, folder: Path, console: Console) -> int:
    """Print and write what is finished; the exit code."""
    from equivox.demo.pages import INDEX, demonstration
    from equivox.report.page import save_all

    if finished.shortened:
        console.print(f"\nFewer seeds than asked for: {finished.shortened}", markup=False)
    if finished.runs:
        comparisons = [compared(case, finished.runs) for case in CASES]
        show(comparisons, console)
        lines = loop(comparisons)
        abouts = [case.about for case in CASES]
        files = demonstration(comparisons, abouts, METHODS, finished, lines)
        files["runs.json"] = json.dumps([run.to_json() for run in finished.runs], indent=1)
        save_all({folder / name: text for name, text in files.items()})
        console.print(f"\nIn your own loop:\n\n{lines}", markup=False)
        console.print(f"\nThe page: {(folder / INDEX).absolute()}", markup=False)
    if finished.stopped == INTERRUPTED:
        return 130
    return 1 if finished.stopped.startswith("a run failed") else 0


def compared(case: Case, runs: Sequence[Run]) -> Comparison:
    """The runs of a case, in the order of its rows."""
    mine = [run for run in runs if run.data == case.data]
    return Comparison(sorted(mine, key=lambda run: case.rows.index(run.row)), YARDSTICKS)


def loop(comparisons: Sequence[Comparison]) -> str:
    """The lines to paste, with the method to begin with.

    Unimodal losses, the simplest cure, unless a method is better by the margin on the validation
    data of the cases in which there is something to cure.
    """
    from equivox import methods

    sick = [c for c in comparisons if not c.nothing_to_cure and set(METHODS) <= set(c.runs)]

    def gain(row: str) -> float:
        return sum(c.validation(row) - c.validation(SIMPLEST) for c in sick)

    best = max(METHODS, key=gain)
    name = best if sick and gain(best) >= MARGIN * len(sick) else SIMPLEST
    return LOOP % methods.get(name).__name__


def _check_writable(folder: Path) -> None:
    """Find out before the work, not after it."""
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / ".writable"
    trial.touch()
    trial.unlink()
