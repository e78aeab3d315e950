"""Runs that are killed at random moments and resumed, until they end like one that was not."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from equivox import cli
from equivox.bench import checkpoint
from equivox.bench.folder import BEST, CONFIG, LAST, METRICS, PREDICTIONS, RESULT
from equivox.console import TERMINATED

METHODS = ("joint", "ogm_ge", "mmpareto", "smv", "umt")
"""Plain; changed gradients; a gradient a loss; other batches; teachers before the first epoch."""
RUN = {"data": "latent2", "option": "samples=1200", "epochs": "6", "batch-size": "16"}
ALWAYS = ("--checkpoint-every", "0.05", "--quiet")
MOST_CUTS, SHARE_OF_TERM, SHARE_OF_FRESH = 3, 0.2, 0.1
PATIENCE = 300.0
"""Seconds after which a run that is not cut, or was asked to end, counts as hanging."""
SLOW_IMPORTS = ("equivox.bench.training", "safetensors.torch", "torch._dynamo", "torchmetrics")
"""What a run would import each time that it is forked."""


@dataclass
class Story:
    """A run that was cut: where each SIGKILL hit, the exit codes after each SIGTERM, how many of
    the cut processes were new interpreters, and what went wrong, which should be nothing."""

    method: str
    kills: list[str] = field(default_factory=list)
    terms: list[int] = field(default_factory=list)
    fresh: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Uncut:
    """A run that was not cut, in a new interpreter, and the seconds of such a process and of a
    forked one."""

    method: str
    folder: Path
    fresh: float
    forked: float


def kill_runs(
    methods: Sequence[str], kills: int, seed: int, minutes: float, jobs: int, out: Path
) -> list[Story]:
    """The stories of runs with at least so many SIGKILLs in all, or as many as the time allows."""
    if not kills:
        return []
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        runs = list(pool.map(uncut_run, methods, [out] * len(methods)))
        stories = [Story(x.method, wrong=different(x.folder, _again(x.folder))) for x in runs]
        number, end = 0, time.monotonic() + minutes * 60
        while sum(len(s.kills) for s in stories) < kills and time.monotonic() < end:
            numbers = range(number, number + jobs)
            made = [
                pool.submit(cut_run, run, f"{seed} {n}", out / f"{run.method}-{n}")
                for n in numbers
                for run in runs
            ]
            stories += [future.result() for future in made]
            number += jobs
    return stories


def uncut_run(method: str, out: Path) -> Uncut:
    """Train once in a new interpreter and once forked, without a cut."""
    folder = out / method
    return Uncut(method, folder, _finish(method, folder, True), _finish(method, _again(folder)))


def _again(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-again")


def cut_run(uncut: Uncut, seed: str, folder: Path) -> Story:
    """Cut a run one to three times, finish it, and compare it with the uncut one."""
    draw, story = random.Random(f"{uncut.method} {seed}"), Story(uncut.method)
    try:
        for _ in range(draw.randint(1, MOST_CUTS)):
            fresh, term = draw.random() < SHARE_OF_FRESH, draw.random() < SHARE_OF_TERM
            moment = draw.random() * (uncut.fresh if fresh else uncut.forked)
            if not _cut(story, folder, moment, fresh, term):
                break
        _finish(story.method, folder)
        story.wrong += [f"`{name}` differs" for name in different(folder, uncut.folder)]
    except Exception as error:  # whatever it is, it is what this benchmark looks for
        story.wrong.append(f"{type(error).__name__}: {error}")
    if not story.wrong:
        shutil.rmtree(folder)
    return story


def _cut(story: Story, folder: Path, moment: float, fresh: bool, term: bool) -> bool:
    """Start a run and cut it; whether it was cut, and had not ended before."""
    begun = time.time()
    process = started(story.method, folder, fresh)
    code = ended(process, moment)
    if code is None:
        os.kill(process, signal.SIGTERM if term else signal.SIGKILL)
        code = ended(process, PATIENCE)
    if code == -signal.SIGKILL:
        story.kills.append(_left(folder, begun))
    elif term and code in (TERMINATED, -signal.SIGTERM):
        story.terms.append(code)
    elif code != 0:
        raise RuntimeError(f"exit code {code}: {_last_line(folder)}")
    _check_whole(folder)
    story.fresh += fresh and code != 0
    return code != 0


def _finish(method: str, folder: Path, fresh: bool = False) -> float:
    """Train to the end; the seconds that it took. RuntimeError where that fails."""
    start = time.monotonic()
    process = started(method, folder, fresh)
    code = ended(process, PATIENCE)
    if code is None:
        os.kill(process, signal.SIGKILL)
        ended(process, PATIENCE)
    if code != 0:
        raise RuntimeError(f"exit code {code} of a run that was not cut: {_last_line(folder)}")
    return time.monotonic() - start


# ── processes ───────────────────────────────────────────────────────────────────────────────────


def started(method: str, folder: Path, fresh: bool) -> int:
    """The number of a process that trains, or goes on where the folder has a run."""
    words = ["--resume", str(folder)]
    if not (folder / CONFIG).exists():
        words = ["--method", method, "--out", str(folder)]
        words += [word for name, value in RUN.items() for word in (f"--{name}", value)]
    process = os.fork()
    if not process:
        _train(["train", *words, *ALWAYS], folder, fresh)
    return process


def _train(arguments: list[str], folder: Path, fresh: bool) -> None:
    code = 70
    try:
        log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "equivox.cli", *arguments])
        code = cli.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(process: int, seconds: float) -> int | None:
    """The exit code, minus the number of a signal; None where it is still running by then."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.001)


def _last_line(folder: Path) -> str:
    """The end of what a run has printed."""
    return Path(f"{folder}.log").read_text().strip().rpartition("\n")[2]


# ── folders ─────────────────────────────────────────────────────────────────────────────────────


def _left(folder: Path, begun: float) -> str:
    """Where a kill hit, from what it left; `begun` tells it from what an earlier one left."""
    if not (folder / CONFIG).exists():
        return "before its configuration was written"
    if any(path.stat().st_mtime > begun for path in folder.rglob(".*")):
        return "while a file or a checkpoint was written"
    if (folder / RESULT).exists():
        return "after the result"
    if (folder / PREDICTIONS).exists():
        return "between predictions and result"
    return "between two checkpoints" if (folder / LAST).exists() else "before the first checkpoint"


def _check_whole(folder: Path) -> None:
    """Raise what reading the checkpoints raises; of a copy, as reading completes a renaming."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "run")
        if folder.exists():
            shutil.copytree(folder, copy)
        for part in (LAST, BEST):
            if checkpoint.exists(copy / part):
                checkpoint.load(copy / part)


def different(folder: Path, other: Path) -> list[str]:
    """The files that are not the same in two finished runs."""
    best = [str(BEST / name) for name in (checkpoint.TENSORS, checkpoint.FACTS)]
    names = [RESULT, METRICS, PREDICTIONS, *best]
    return [name for name in names if _content(folder / name) != _content(other / name)]


def _content(file: Path) -> Any:
    """A file's bytes; of a result all but the time that it took."""
    if file.name != RESULT:
        return file.read_bytes()
    return json.loads(file.read_bytes()) | {"seconds": None}
