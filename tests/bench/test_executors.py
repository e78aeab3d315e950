"""Executors: whole runs on processes of one machine, or by a cluster's scheduler."""

from __future__ import annotations

import io
import itertools
import math
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from equivox.bench import executors
from equivox.bench.dashboard import Progress
from equivox.bench.executors import Lost, Task, cores, local, submitted
from equivox.bench.jobs import Choice, Job
from equivox.bench.making import Outcome, made, make, work
from equivox.bench.notation import duration
from equivox.bench.pace import Pace

pytestmark = pytest.mark.xdist_group("distributed")

SMALL = Choice.parse("latent2:samples=400")


def place() -> tuple[int, int, list[int]]:
    """Where a call is made: its process, its threads and the cores that it may use."""
    return os.getpid(), torch.get_num_threads(), cores()


def killed_once(path: Path) -> str:
    if path.exists():
        return "alive"
    path.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def broken() -> None:
    raise RuntimeError("it broke")


def waited(*tasks: Task) -> None:
    while not all(task.done() for task in tasks):
        time.sleep(0.01)


def test_processes_have_threads_and_cores_of_their_own() -> None:
    with local(2) as executor:
        tasks = executor.submit(place, [(), ()])
        waited(*tasks)
        (one, threads, mine), (two, _, theirs) = (task.result() for task in tasks)
    assert one != two != os.getpid()
    share = len(cores()) // 2
    assert threads == max(1, min(share, int(os.environ.get("OMP_NUM_THREADS") or share)))
    if share and sys.platform == "linux":
        assert not set(mine) & set(theirs)
    for process in (one, two):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_killed_process_takes_its_own_run_alone(tmp_path: Path) -> None:
    path = tmp_path / "killed"
    with local(2) as executor:
        lost, whole = *executor.submit(killed_once, [(path,)]), *executor.submit(place, [()])
        waited(lost, whole)
        with pytest.raises(Lost):
            lost.result()
        assert whole.result()
        again = executor.submit(killed_once, [(path,)])
        waited(*again)
        assert again[0].result() == "alive"


def test_leaving_does_not_wait_for_what_runs() -> None:
    start = time.monotonic()
    with local(1) as executor:
        executor.submit(time.sleep, [(300,)])
    assert time.monotonic() - start < 60


def test_a_scheduler_makes_the_same_runs_and_tells_what_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as here: the order of sums depends on it
    job = Job(SMALL, Choice("joint"), 0, 1)
    parameters = {"cluster": "local", "partition": "any"}
    with submitted(tmp_path / "jobs", 2, parameters) as executor:
        (fault,) = executor.submit(broken, [()])
        found = list(work([job], tmp_path / "there", executor, Pace()))
        assert found == [(job, Outcome("begun")), (job, Outcome("made"))]
        waited(fault)
        with pytest.raises(Exception, match="it broke"):
            fault.result()
    make(job, tmp_path / "here")
    there, here = (
        (job.folder(tmp_path / where) / "predictions.safetensors").read_bytes()
        for where in ("there", "here")
    )
    assert there == here


class Scheduler:
    """In place of `submitit`: a cluster on which a job is done when it is told."""

    cluster = "slurm"
    AutoExecutor = SlurmExecutor = property(lambda self: self)

    def __init__(self) -> None:
        self.ended: set[int] = set()
        self.jobs = itertools.count()
        self.parameters: dict[str, object] = {}

    def __call__(self, **_: object) -> Scheduler:
        return self

    def _valid_parameters(self) -> set[str]:
        return {"timeout_min", "array_parallelism"}

    def update_parameters(self, **given: object) -> None:
        self.parameters = given

    def batch(self) -> nullcontext[None]:
        return nullcontext()

    def submit(self, *_: object) -> SimpleNamespace:
        number = next(self.jobs)
        return SimpleNamespace(done=lambda: number in self.ended, cancel=lambda **_: None)


def test_a_scheduler_gets_one_array_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each array bounds its own runs alone: two would run twice as many as asked for."""
    scheduler = Scheduler()
    monkeypatch.setattr(executors, "_submitit", lambda: scheduler)
    with submitted(tmp_path, 3) as executor:
        assert (executor.room, scheduler.parameters["array_parallelism"]) == (executors.ARRAY, 3)
        executor.submit(place, [(), ()])
        for ended, room in ((set(), 0), ({0}, 0), ({0, 1}, executors.ARRAY)):
            scheduler.ended = ended
            assert executor.room == room


def test_parameters_that_a_scheduler_does_not_have_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with (
        pytest.raises(ValueError, match="Did you mean `partition`"),
        submitted(tmp_path, 2, {"cluster": "local", "partitoin": "gpu"}),
    ):
        pass


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"equivox\[cluster\]"), submitted(tmp_path, 2):
        pass


def test_a_run_that_waited_too_long_does_not_begin(tmp_path: Path) -> None:
    job = Job(SMALL, Choice("joint"), 0, 1)
    assert made(job, tmp_path, time.time() - 1) == Outcome("left")
    assert not job.folder(tmp_path).exists()


def test_a_refusal_says_why(tmp_path: Path) -> None:
    job = Job(Choice.parse("latent_regression:samples=400"), Choice("mmcosine"), 0, 1)
    what, why = made(job, tmp_path, math.inf)
    assert what == "failed" and "MMCosine" in why


# ── what is shown ───────────────────────────────────────────────────────────────────────────────


def test_the_dashboard_tells_what_runs_and_what_is_left(tmp_path: Path) -> None:
    from rich.console import Console

    jobs = [Job(SMALL, Choice("joint"), seed) for seed in range(4)]
    pace = Pace()
    progress = Progress("runs", jobs, pace, at_once=2)
    progress.tell(jobs[0], Outcome("begun"))
    assert duration(progress.seconds_left()) == "?"
    path = jobs[0].folder(tmp_path) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"wall": 60.0}')
    pace.note(jobs[0], tmp_path)
    progress.tell(jobs[0], Outcome("made"))
    progress.tell(jobs[1], Outcome("begun"))
    progress.tell(jobs[2], Outcome("begun"))
    progress.tell(jobs[2], Outcome("failed"))
    assert progress.seconds_left() == 60.0  # two of 60 s, two at a time
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(progress)
    lines = console.export_text().splitlines()
    assert lines[1].split()[0] == SMALL.label
    assert lines[1].split()[-5:] == ["1", "1", "4", "60", "s"]
    assert lines[-1].split()[:5] == ["running", f"{SMALL.label},", "joint,", "seed", "1"]
    assert progress.line(jobs[2], Outcome("fault", "it broke")).endswith(
        "joint, seed 2: fault: it broke"
    )
