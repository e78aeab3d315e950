"""`equivox compare`: makes what is lacking of a comparison, then its tables."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock

from equivox import methods
from equivox.bench.cost_records import cost_jobs, make_cost
from equivox.bench.dashboard import Progress, shown
from equivox.bench.executors import Executor, cores, local, submitted
from equivox.bench.experiment import Experiment
from equivox.bench.files import replace
from equivox.bench.jobs import SEARCH_SEED, Choice, Job, check, chosen, run_jobs, split
from equivox.bench.latex import latex
from equivox.bench.leaderboard import boards
from equivox.bench.making import Making, Outcome, work
from equivox.bench.making import make as make_run
from equivox.bench.notation import counted
from equivox.bench.pace import Pace
from equivox.bench.search import choose, search_jobs
from equivox.bench.tables import markdown, table
from equivox.console import FAILED, INTERRUPTED, TERMINATED, told

FAULTS = {"busy", "lost", "unwritable", "fault"}


def main(given: argparse.Namespace) -> int:
    """Compare.

    Returns 0; 1 where runs broke or another process is still busy with some; 75 where the budget
    leaves some for the next time; 130 where it was interrupted from the keyboard.
    """
    data, choices = _choices(given.data, ()), _choices(given.methods, methods.names())
    _check(given, data, choices)
    given.out.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(given)
    try:
        with _executor(given) as executor:
            comparison.make(executor, data, choices)
    except KeyboardInterrupt:
        return told(
            f"Interrupted. {comparison.finished} of {comparison.asked} runs are finished and kept. "
            "The same command goes on from here.",
            INTERRUPTED,
        )
    try:
        print(write(given.out))
    finally:  # on a full disk too
        code = comparison.code()
    return code


class Comparison:
    """A comparison in progress: how many runs were asked for and are finished, and what broke."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.pace = Pace(given.budget)
        self.asked = self.finished = self.left = 0
        self.problems: list[tuple[Job, Outcome]] = []

    def make(self, executor: Executor, data: Sequence[Choice], choices: Sequence[Choice]) -> None:
        """Make the trials, then the runs of all whose trials are finished."""
        given = self.given
        if given.search:
            trials = search_jobs(data, choices, given.search, given.epochs, given.patience)
            self._work("trials", trials, executor)
            for _, group in itertools.groupby(trials, key=lambda job: (job.data, job.method)):
                jobs = list(group)
                if all(job.ended(given.out) for job in jobs):
                    with _alone(given.out):
                        choose(given.out, jobs, given.search)
        tuned = given.search or 0
        runs = run_jobs(data, choices, given.seeds, given.epochs, tuned, given.patience)
        ready = [job for job in runs if not tuned or chosen(job, given.out).exists()]
        self.left += len(runs) - len(ready)
        self._work("runs", ready, executor)
        if given.cost:
            self._work("costs", cost_jobs(data, choices, given.epochs), executor, make_cost)

    def _work(
        self, what: str, jobs: Sequence[Job], executor: Executor, making: Making = make_run
    ) -> None:
        if making is make_run:
            for job in jobs:
                check(job, self.given.out)
        self.asked += len(jobs)
        progress = Progress(what, jobs, self.pace, self.given.jobs)
        with shown(progress) as tell:
            for job, outcome in work(jobs, self.given.out, executor, self.pace, making):
                tell(job, outcome)
                self._count(job, outcome)

    def _count(self, job: Job, outcome: Outcome) -> None:
        self.finished += outcome.what in ("made", "kept", "failed")
        self.left += outcome.what == "left"
        if outcome.what in FAULTS:
            self.problems.append((job, outcome))

    def code(self) -> int:
        """The exit code, after saying why; what others were busy with may have ended by now."""
        broken = [
            (job, outcome)
            for job, outcome in self.problems
            if outcome.what != "busy" or not job.ended(self.given.out)
        ]
        for job, outcome in broken:
            why = outcome.why or "another process is at it"
            told(f"{job}: {outcome.what}: {why}", FAILED)
        if self.left:
            told(f"{counted(self.left, 'run')} left. The same command makes the rest.", TERMINATED)
        return FAILED if broken else TERMINATED if self.left else 0


def write(out: Path) -> str:
    """Write the tables of all that is finished in the folder; the text of `table.md`."""
    with _alone(out):
        found = boards(out)
        text = markdown(found)
        replace(out / "table.md", text.encode())
        replace(out / "table.tex", latex(found).encode())
        replace(out / "table.csv", table(found).encode())
    return text


def _alone(out: Path) -> FileLock:
    """For what any process at work on the folder may write at the same time."""
    return FileLock(out / ".lock")


def _choices(text: str, every: Sequence[str]) -> list[Choice]:
    """What is written with commas, each once; `all` stands for every one."""
    found: dict[str, Choice] = {}
    for part in split(text, ","):
        for name in every if every and part == "all" else [part]:
            choice = Choice.parse(name)
            found[choice.label] = choice
    return list(found.values())


def _check(given: argparse.Namespace, data: Sequence[Choice], choices: Sequence[Choice]) -> None:
    """Refuse unknown names and arguments before the first run; say what cannot be meant."""
    for choice in data:
        Experiment(choice.name, data_options=choice.options).load()
    for choice in choices:
        Experiment(data[0].name, choice.name, arguments=choice.options)
    if given.seeds > SEARCH_SEED:
        raise ValueError(
            f"`--seeds` should be {SEARCH_SEED} or less, for that seed is the trials'. Found "
            f"{given.seeds}."
        )
    if given.search == 1:
        raise ValueError(
            "`--search` should be 2 trials or more, for the first has the defaults. Found 1. Ask "
            "for more, or leave it out."
        )
    if given.slurm and given.executor != "submitit":
        raise ValueError("`--slurm` is for a cluster. Found none. Add `--executor submitit`.")
    if given.seeds == 1:
        told("one seed says nothing of the noise between seeds: take five or more.", 0)
    if given.executor == "local" and given.jobs > len(cores()):
        told(f"{given.jobs} processes share {len(cores())} cores: `--jobs` is no faster so.", 0)


def _executor(given: argparse.Namespace) -> AbstractContextManager[Executor]:
    if given.executor == "submitit":
        return submitted(given.out / "submitit", given.jobs, dict(given.slurm))
    return local(given.jobs)
