"""The making of runs: one, resumed where it was cut, or many, on whatever executor."""

from __future__ import annotations

import errno
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from equivox.bench.executors import Executor, Lost, Task
from equivox.bench.files import make_folder, write
from equivox.bench.folder import CONFIG, LAST, NO_ROOM, RESULT, read_best, read_metrics
from equivox.bench.jobs import Job, check
from equivox.bench.measure import contributions, probes
from equivox.bench.pace import Pace
from equivox.bench.records import FAILED, FORMAT, RECORD, read
from equivox.bench.result import worth
from equivox.bench.sharing import Shared, taken
from equivox.bench.training import Terminated, train
from equivox.functional.shapley import imbalance
from equivox.run import recalling
from equivox.task import Dense

Making = Callable[[Job, Path], str]

FULL = NO_ROOM | {errno.EROFS}
"""Errors that the next run would meet as well."""

TRIES = 2
"""How often a run is begun whose process is killed."""


def make(job: Job, out: Path) -> str:
    """Make a run, or the rest of it.

    Returns "made", "kept" where it was finished, "failed" where it diverged or was refused, which
    its folder tells, or "busy" where another process is at it. Raises ValueError for what `check`
    refuses, and OSError where nothing can be written.
    """
    folder = job.folder(out)
    check(job, out)
    if job.ended(out):
        return "kept"
    make_folder(folder.parent)
    try:
        with FileLock(folder.parent / f".{folder.name}.lock", timeout=0):
            return "kept" if job.ended(out) else _make(job, out, folder)
    except Timeout:
        return "busy"


def _make(job: Job, out: Path, folder: Path) -> str:
    start = time.perf_counter()
    resume = (folder / CONFIG).exists()
    if not resume and folder.exists():
        _check_unbegun(folder)
        shutil.rmtree(folder)
    trained = _trained(folder)
    try:
        experiment = job.experiment(out)
        with recalling(Shared(out / "shared" / job.data.folder, experiment, folder)):
            result = train(experiment, folder, resume=resume, locked=True)
    except (FloatingPointError, ValueError, TypeError) as error:
        # It diverged, or was refused. What comes later, such as a damaged checkpoint, is a fault.
        accepted = trained or (folder / LAST).exists()
        if accepted and not isinstance(error, FloatingPointError):
            raise
        folder.mkdir(parents=True, exist_ok=True)
        told = {"error": str(error), "kind": type(error).__name__}
        write(folder / FAILED, _names(job) | told | {"wall": time.perf_counter() - start})
        return "failed"
    record = _names(job) | _result(result, folder) | {"arguments": dict(experiment.arguments)}
    if job.trial is None:
        record |= _tested(result) | _measured(result, folder)
    write(folder / RECORD, record | {"wall": time.perf_counter() - start})
    if result.balancer is not None:
        result.balancer.detach()  # it and its optimizer hold each other: so they are let go at once
    return "made"


def _check_unbegun(folder: Path) -> None:
    """Refuse what no run leaves that is killed before it has begun, or in telling its refusal."""
    if {path.name for path in folder.iterdir()} - {f".{CONFIG}.new", f".{FAILED}.new"}:
        raise ValueError(
            f"A run that has begun should hold `{CONFIG}`. Found none in `{folder}`, and other "
            "files: part of it was deleted. Put it back, or delete the whole folder, and the run "
            "is made again."
        )


def _trained(folder: Path) -> bool:
    """Whether there are results of an epoch: the method was accepted then."""
    return (folder / RESULT).exists() or bool(read_metrics(folder))


def _names(job: Job) -> dict[str, Any]:
    names = {"data": job.data.label, "method": job.method.label, "seed": job.seed}
    return names | {"tuned": job.tuned, "trial": job.trial, "format": FORMAT}


def _result(result: Any, folder: Path) -> dict[str, Any]:
    """What a search compares and counts: with the seconds that others spent on what it shares."""
    monitor = result.balancer.task.monitor
    return {
        "metric": monitor,
        "validation": worth(result.best["validation"], monitor),
        "seconds": result.seconds + sum(taken(folder).values()),
    }


def _tested(result: Any) -> dict[str, Any]:
    return {
        "epoch": result.best["epoch"],
        "test": result.best["test"],
        "last": {key: result.last[key] for key in ("test", "branches", "unimodal")},
        "parameters": dict(result.parameters),
        "fingerprint": result.protocol["fingerprint"],
    }


def _measured(result: Any, folder: Path) -> dict[str, Any]:
    """The last epoch's probes, and the contributions in the selected one."""
    balancer, data = result.balancer, result.experiment.load()
    whole = {s: data.loader(s, batch_size=4096, shuffle=False) for s in ("train", "test")}
    found: dict[str, Any] = {"probe": {}}
    if not isinstance(balancer.task, Dense):
        found["probe"] = probes(balancer, whole["train"], whole["test"], logistic=True)
    balancer.load_state_dict(read_best(folder, result.best["epoch"]))
    phi = contributions(balancer, whole["test"])
    unequal = imbalance({m: torch.tensor(x) for m, x in phi.items()})
    return found | {"contribution": phi, "imbalance": float(unequal.absolute)}


# ── many ────────────────────────────────────────────────────────────────────────────────────────


class Outcome(NamedTuple):
    """What became of a run.

    `what` is "begun"; what `make` returns; "left", where it should not end within the budget, or
    was asked to end; "lost", where its process was killed, twice; "unwritable", where its folder
    cannot be written; or "fault". The last three, and "failed", say `why`.
    """

    what: str
    why: str = ""


def work(
    jobs: Sequence[Job], out: Path, executor: Executor, pace: Pace, making: Making = make
) -> Iterator[tuple[Job, Outcome]]:
    """Make all jobs by `making`; yields each when it has begun and when it has ended.

    Where the disk is full nothing more is begun. The folders keep what is done.
    """
    waiting: deque[_Attempt] = deque()
    for job in jobs:
        if job.ended(out):
            pace.note(job, out)
            yield job, Outcome("kept")
        else:
            waiting.append(_Attempt(job))
    going: list[_Attempt] = []
    while waiting or going:
        batch, late = _next(waiting, executor.room - len(going), pace)
        yield from ((attempt.job, Outcome("left")) for attempt in late)
        going += _handed(batch, out, executor, pace, making)
        yield from ((attempt.job, Outcome("begun")) for attempt in going if attempt.begins())
        for attempt in [attempt for attempt in going if attempt.task.done()]:
            going.remove(attempt)
            outcome = attempt.outcome()
            if outcome.what == "lost" and attempt.tries < TRIES:
                waiting.appendleft(attempt)
                continue
            if outcome.what == "unwritable":
                pace.stop()
            pace.note(attempt.job, out)
            yield attempt.job, outcome
        if going:
            time.sleep(executor.pause)


class _Attempt:
    """A job that is handed over, once or twice."""

    task: Task

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tries = 0
        self._told = False

    def begins(self) -> bool:
        """Whether it has begun since this was last asked."""
        if self._told or not self.task.running():
            return False
        self._told = True
        return True

    def outcome(self) -> Outcome:
        """What became of it."""
        try:
            found: Outcome = self.task.result()
        except Lost as error:
            return Outcome("lost", str(error))
        except Exception as error:  # whatever it is, the other runs go on
            return Outcome("fault", f"{type(error).__name__}: {error}")
        return found


def _next(waiting: deque[_Attempt], room: int, pace: Pace) -> tuple[list[_Attempt], list[_Attempt]]:
    """Those that are to begin, and those before them that would not end in time."""
    batch: list[_Attempt] = []
    late: list[_Attempt] = []
    while waiting and len(batch) < room:
        attempt = waiting.popleft()
        (late if time.time() > pace.latest(attempt.job) else batch).append(attempt)
    return batch, late


def _handed(
    batch: Sequence[_Attempt], out: Path, executor: Executor, pace: Pace, making: Making
) -> Sequence[_Attempt]:
    if batch:
        calls = [(attempt.job, out, pace.latest(attempt.job), making) for attempt in batch]
        for attempt, task in zip(batch, executor.submit(made, calls), strict=True):
            attempt.task = task
            attempt.tries += 1
    return batch


def made(job: Job, out: Path, latest: float, making: Making = make) -> Outcome:
    """What an executor calls: `making`, if it is not later than `latest`; nothing is raised."""
    if time.time() > latest:
        return Outcome("left")
    try:
        what = making(job, out)
        why = read(job.folder(out) / FAILED, {"error": str})["error"] if what == "failed" else ""
        return Outcome(what, why)
    except Terminated:
        return Outcome("left")
    except OSError as error:
        causes = (error, error.__cause__)
        full = any(isinstance(each, OSError) and each.errno in FULL for each in causes)
        return Outcome("unwritable" if full else "fault", str(error))
    except Exception as error:  # of any kind: it must not be lost on the way back
        return Outcome("fault", f"{type(error).__name__}: {error}")
