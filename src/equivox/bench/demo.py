"""The demonstration: an imbalance, what it costs, what cures it, and a case without one.

Two data sets on which joint training neglects an encoder, and a control on which there is nothing
to cure. Each seed is one full set of runs, so that whatever is finished can be compared seed by
seed; work ends with the seeds, the time or Ctrl-C, and what is finished is reported.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivox.bench.comparison import ALONE, JOINT, MARGIN, Comparison, Run
from equivox.bench.findings import cells, diagnosis, explanation, header, label, outcome, verdict
from equivox.bench.schedule import Finished, Job, Schedule, workers

if TYPE_CHECKING:
    from rich.console import Console

    from equivox.balancer import Balancer
    from equivox.bench.training import Result
    from equivox.data import MultimodalData

ENSEMBLE, SIMPLEST = "ensemble", "unimodal_losses"
YARDSTICKS = (ENSEMBLE, SIMPLEST)
METHODS = ("ogm_ge", "mmpareto", "mmcosine")
INTERRUPTED = "it was interrupted"


@dataclass(frozen=True)
class Case:
    """A data set of the demonstration, what is shown on it, and the methods that run there."""

    data: str
    modalities: tuple[str, ...]
    about: str
    methods: tuple[str, ...] = (*YARDSTICKS, *METHODS)
    epochs: int | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of its table: each modality alone, joint training, the methods."""
        return (*(ALONE + m for m in self.modalities), JOINT, *self.methods)


CASES = (
    Case(
        "latent2",
        ("easy", "hard"),
        "Made data with exactly known ceilings: `easy` can reach 0.95 alone, `hard` 0.90 but takes "
        "longer to learn, both together 0.993.",
    ),
    Case(
        "digits",
        ("gray", "colour"),
        "1,797 real images of handwritten digits, gray and coloured. The colour gives the class "
        "away in 98 % of the training images and in only half of the test images: a shortcut.",
    ),
    Case(
        "balanced",
        ("first", "second"),
        "The control: two equally informative modalities that are learned equally fast.",
        YARDSTICKS,
        epochs=8,  # both are learned in three
    ),
)


JOBS = tuple((case.data, method) for case in CASES for method in (JOINT, *case.methods))


# ── one training, in a worker ───────────────────────────────────────────────────────────────────


def run(job: Job, epochs: int | None = None, **options: Any) -> list[Run]:
    """Train a method on a case with one seed, and measure it.

    Of an ensemble, which is every modality trained alone, each of them is a run as well.

    :param epochs: The case's own where not given; `options` are further ones of the data.
    """
    from equivox.bench.experiment import Experiment
    from equivox.bench.training import train

    case = next(case for case in CASES if case.data == job.data)
    chosen = Experiment(job.data, job.method, job.seed, epochs or case.epochs, data_options=options)
    data = chosen.load()
    watched = Watched(job.method == ENSEMBLE, probed=job.method in (JOINT, ENSEMBLE))
    result = train(chosen, measure=watched, watch=watched.time)
    best, balancer = result.best, watched.restored(result, data)
    found = [_run(job, job.method, watched, best["epoch"], watched.best[""], balancer, data)]
    if watched.apart:
        for m in data.modalities:
            epoch, alone = watched.restored_alone(m, balancer)
            worth, view = watched.best[m], only(data, m)
            found.append(_run(job, ALONE + m, watched, epoch, worth, alone, view))
    return found


def _run(
    job: Job,
    row: str,
    watched: Watched,
    epoch: int,
    validation: float,
    balancer: Balancer,
    data: MultimodalData,
) -> Run:
    from equivox.bench.measure import measure

    seconds = None if row.startswith(ALONE) else statistics.median(watched.seconds)
    curves = {m: watched.curves[m] for m in data.modalities}
    probe = {m: watched.probe[m] for m in data.modalities if m in watched.probe}
    test = measure(balancer, _whole(data, "train"), _whole(data, "test"))
    return Run(job.data, row, job.seed, epoch, validation, seconds, curves, probe, test)


class Watched:
    """Follows a training: probes and time of every epoch, and the weights of the best so far.

    :param apart: Follow each modality's encoder and head as well, each with its own best epoch.
    :param probed: Probe the encoders at the end on the test data.
    """

    def __init__(self, apart: bool = False, probed: bool = True) -> None:
        self.apart = apart
        self.probed = probed
        self.curves: dict[str, list[float]] = {}
        self.seconds: list[float] = []
        self.probe: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self._states: dict[str, tuple[int, Any]] = {}
        self._epochs = 0

    def __call__(self, balancer: Balancer, data: MultimodalData) -> Mapping[str, float]:
        """Probe every encoder on the validation data; keep the weights that are the best."""
        from equivox.bench.measure import metric, probes, unimodal

        validation = _whole(data, "validation")
        found = probes(balancer, _whole(data, "train"), validation)
        for modality, probe in found.items():
            self.curves.setdefault(modality, []).append(probe)
        self._keep("", metric(balancer, validation), balancer)
        if self.apart:
            for modality, worth in unimodal(balancer, validation).items():
                self._keep(modality, worth, balancer)
        self._epochs += 1
        return {f"probe {modality}": probe for modality, probe in found.items()}

    def _keep(self, what: str, worth: float, balancer: Balancer) -> None:
        if worth >= self.best.get(what, -math.inf):  # the latest of equals, as `train` chooses
            self.best[what] = worth
            self._states[what] = self._epochs, copy.deepcopy(balancer.state_dict())

    def time(self, record: Mapping[str, Any]) -> None:
        """Note how long the epoch took, without measuring."""
        self.seconds.append(record["seconds"])

    def restored(self, result: Result, data: MultimodalData) -> Balancer:
        """Probe the encoders at the end of training; then the balancer as of its best epoch."""
        from equivox.bench.measure import probes

        balancer, (epoch, state) = result.balancer, self._states[""]
        if balancer is None or epoch != result.best["epoch"]:
            raise RuntimeError(
                f"The chosen epoch should be the one that was kept, {epoch}. Found "
                f"{result.best['epoch']}."
            )
        if self.probed:
            fit, test = _whole(data, "train"), _whole(data, "test")
            self.probe = probes(balancer, fit, test, logistic=True)
        balancer.load_state_dict(state)
        return balancer

    def restored_alone(self, modality: str, balancer: Balancer) -> tuple[int, Balancer]:
        """One modality's encoder and head as a network by itself, and their best epoch.

        The weights of `balancer` are then those of that epoch.
        """
        from equivox.balancer import Balancer
        from equivox.fusion import Concat
        from equivox.model import Multimodal

        epoch, state = self._states[modality]
        balancer.load_state_dict(state)
        model = balancer.model
        fusion = Concat({modality: model.widths[modality]}, model.outputs or 1)
        fusion.linear.load_state_dict(model.get_submodule(f"heads.{modality}").state_dict())
        alone = Multimodal({modality: copy.deepcopy(model.encoders[modality])}, fusion)
        return epoch, Balancer(alone, task=balancer.task)


def only(data: MultimodalData, modality: str) -> MultimodalData:
    """The same data with one modality alone."""
    return replace(
        data,
        train=data.train.only(modality),
        validation=data.validation.only(modality),
        test=data.test.only(modality),
        architectures={modality: data.architectures[modality]},
    )


def _whole(data: MultimodalData, split: str) -> Any:
    return data.loader(split, batch_size=4096, shuffle=False)


# ── all of them, under a live display ───────────────────────────────────────────────────────────


def gather(seeds: int, budget: float, console: Console) -> Finished:
    """Do the work; Ctrl-C or a failure ends it with what is finished."""
    schedule = Schedule(JOBS, seeds, budget)
    stopped = ""
    try:
        with workers() as executor, _display(schedule, console) as shown:
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
        f"{arguments.seeds} seeds, at most about {arguments.budget:.0f} s. Ctrl-C keeps the seeds "
        "that are finished."
    )
    return _report(gather(arguments.seeds, arguments.budget, console), folder, console)


def _report(finished: Finished, folder: Path, console: Console) -> int:
    """Print and write what is finished; the exit code."""
    from equivox.report.demonstration import demonstration
    from equivox.report.page import save

    if finished.shortened:
        console.print(f"\nFewer seeds than asked for: {finished.shortened}", markup=False)
    if finished.runs:
        comparisons = [compared(case, finished.runs) for case in CASES]
        show(comparisons, console)
        plain = [run.to_json() for run in finished.runs]
        save(json.dumps(plain, indent=1), folder / "runs.json")
        abouts = [case.about for case in CASES]
        page = demonstration(comparisons, abouts, METHODS, finished, loop(comparisons))
        path = save(page, folder / "index.html")
        console.print(f"\nIn your own loop:\n\n{loop(comparisons)}", markup=False)
        console.print(f"\nThe page: {path}", markup=False)
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
