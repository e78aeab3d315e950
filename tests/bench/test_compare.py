"""Comparisons: folders that go on where they were, and tables that are paired and honest."""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import equivox as ev
from equivox import cli
from equivox.bench import checkpoint, comparison, files, making
from equivox.bench.comparison import main
from equivox.bench.executors import Executor, Lost
from equivox.bench.jobs import SEARCH_SEED, Choice, Job, check, chosen, run_jobs
from equivox.bench.leaderboard import boards
from equivox.bench.making import make, work
from equivox.bench.pace import Pace
from equivox.bench.records import FAILED, RECORD
from equivox.bench.search import choose, cost, search_jobs, space, trials
from equivox.bench.statistics import paired
from equivox.bench.tables import DAGGER, board_markdown

SMALL = Choice.parse("latent2:samples=400")
JOINT, LOSSES = Choice("joint"), Choice("unimodal_losses")


def job(method: Choice = JOINT, seed: int = 0, **more: object) -> Job:
    return Job(SMALL, method, seed, 1, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    for method in (JOINT, LOSSES, Choice("ogm_ge", {"alpha": 0.5})):
        for seed in (0, 1):
            assert make(job(method, seed), out) == "made"
    return out


def told(job: Job, out: Path) -> dict[str, Any]:
    """A record, but for the times."""
    record = json.loads((job.folder(out) / RECORD).read_bytes())
    return {key: value for key, value in record.items() if key not in ("seconds", "wall")}


def test_choices_are_read_as_they_are_written() -> None:
    found = Choice.parse("avmnist:train_samples=3000:audio=audio_noisy")
    assert found.options == {"train_samples": 3000, "audio": "audio_noisy"}
    assert Choice.parse(found.label) == found
    nested = Choice("modality_lr", {"factors": {"easy": 1.0, "hard": 2.0}})
    assert Choice.parse(nested.label) == nested
    assert "/" not in Choice.parse("latent2:path=a/b").folder


def test_a_finished_run_is_kept(compared: Path) -> None:
    record = job().folder(compared) / RECORD
    before = record.read_bytes()
    assert make(job(), compared) == "kept"
    assert record.read_bytes() == before


def test_a_run_is_made_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = job().folder(tmp_path)
    folder.parent.mkdir(parents=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        assert make(job(), tmp_path) == "busy"


@pytest.mark.parametrize("lost", ["record.json", "result.json", "config.json", "failed.json"])
def test_what_a_kill_left_is_finished(compared: Path, tmp_path: Path, lost: str) -> None:
    """A run cut before its record, its result, its beginning or its refusal was written."""
    expected = told(job(), compared)
    make(job(), tmp_path)
    folder = job().folder(tmp_path)
    if lost in ("config.json", "failed.json"):
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / f".{lost}.new").write_text("{")
    else:
        (folder / "record.json").unlink()
        (folder / lost).unlink(missing_ok=True)
    assert make(job(), tmp_path) == "made"
    assert told(job(), tmp_path) == expected


def test_what_diverges_or_is_refused_is_told(tmp_path: Path) -> None:
    refused = Job(Choice.parse("latent_regression:samples=400"), Choice("mmcosine"), 0, 1)
    assert make(refused, tmp_path) == "failed"
    why = json.loads((refused.folder(tmp_path) / FAILED).read_bytes())
    assert why["kind"] == "ValueError"
    assert "MMCosine" in why["error"]
    assert make(refused, tmp_path) == "kept"


def test_trials_begin_with_the_defaults_and_do_not_repeat() -> None:
    tried = ev.OGMGE.search_space
    found = trials(tried, 100)
    assert found[0] == {}
    assert len({json.dumps(point, sort_keys=True) for point in found}) == len(found)
    assert trials(tried, 3) == found[:3]
    assert trials({}, 5) == [{}]


def test_a_space_may_depend_on_the_modalities() -> None:
    points = trials(space(Choice("modality_lr"), ("a", "b")), 100)[1:]
    assert {m for point in points for m in point["factors"]} == {"a", "b"}


def test_a_chain_is_searched_and_what_is_given_is_not() -> None:
    chain = space(Choice.parse("ogm_ge+mmcosine"), ())
    assert chain.keys() == {"ogm_ge.alpha", "mmcosine.scale"}
    assert space(Choice.parse("ogm_ge+mmcosine:alpha=0.5"), ()).keys() == {"mmcosine.scale"}
    assert space(Choice.parse("ogm_ge+mmcosine:ogm_ge.alpha=0.5"), ()).keys() == {"mmcosine.scale"}
    (_, *jobs) = search_jobs([SMALL], [Choice("ogm_ge+mmcosine")], 3, 1)
    assert all(j.experiment(Path()).arguments.keys() == chain.keys() for j in jobs)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_trial_whose_metric_is_not_finite_is_never_the_best(tmp_path: Path, value: float) -> None:
    jobs = search_jobs([SMALL], [LOSSES], 2, epochs=1)
    for one, validation in zip(jobs, (value, 0.1), strict=True):
        one.folder(tmp_path).mkdir(parents=True)
        told = {"validation": validation, "arguments": dict(one.arguments), "seconds": 1.0}
        (one.folder(tmp_path) / RECORD).write_text(json.dumps(told))
    choose(tmp_path, jobs, 2)
    found = json.loads(chosen(job(LOSSES, tuned=2), tmp_path).read_bytes())
    assert (found["arguments"], found["failed"]) == (jobs[1].arguments, 1)


def test_the_search_chooses_on_validation(tmp_path: Path) -> None:
    jobs = search_jobs([SMALL], [LOSSES], 2, epochs=1)
    make(jobs[0], tmp_path)
    with pytest.raises(ValueError, match="should be finished before"):
        choose(tmp_path, jobs, 2)
    make(jobs[1], tmp_path)
    choose(tmp_path, jobs, 2)
    every = [json.loads((j.folder(tmp_path) / RECORD).read_bytes()) for j in jobs]
    best = max(every, key=lambda record: record["validation"])
    tuned = job(LOSSES, tuned=2)
    assert dict(tuned.experiment(tmp_path).arguments) == best["arguments"]
    with pytest.raises(FileNotFoundError):
        job(LOSSES, tuned=3).experiment(tmp_path)

    found = json.loads(chosen(tuned, tmp_path).read_bytes())
    assert (found["trials"], found["failed"]) == (2, 0)
    assert found["search_seconds"] == pytest.approx(sum(one["seconds"] for one in every))
    assert cost(tmp_path, SMALL.label, 2).startswith("2 trials, ")
    assert all("test" not in one for one in every)
    assert {j.seed for j in jobs} == {SEARCH_SEED}


def test_a_larger_value_is_better_for_every_task(tmp_path: Path) -> None:
    """R2, not the mean absolute error, which comes first in the alphabet."""
    regression = Job(Choice.parse("latent_regression:samples=400"), JOINT, 0, 1)
    assert make(regression, tmp_path) == "made"
    record = json.loads((regression.folder(tmp_path) / RECORD).read_bytes())
    assert record["metric"] == "r2"
    line = boards(tmp_path)[regression.data.label, 0].lines[0]
    assert line.metric.mean == record["test"]["r2"]


def test_a_fault_is_not_written_down_as_a_refusal(tmp_path: Path) -> None:
    make(job(), tmp_path)
    folder = job().folder(tmp_path)
    for name in (RECORD, "result.json"):
        (folder / name).unlink()
    for path in (folder / "checkpoints" / "last").iterdir():
        path.write_bytes(b"{")
    with pytest.raises(ValueError, match="checkpoint"):
        make(job(), tmp_path)
    assert not (folder / FAILED).exists()


def test_an_unfinished_run_without_its_configuration_is_left(tmp_path: Path) -> None:
    make(job(), tmp_path)
    folder = job().folder(tmp_path)
    for name in (RECORD, "config.json"):
        (folder / name).unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"should hold `config\.json`.*delete the whole folder"):
        make(job(), tmp_path)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_contributions_are_those_of_the_selected_epoch(tmp_path: Path) -> None:
    make(job(), tmp_path)
    folder = job().folder(tmp_path)
    (folder / RECORD).unlink()
    best = folder / "checkpoints" / "best"
    measured = making._measured

    def mixed(result: Any, folder: Path) -> dict[str, Any]:
        checkpoint.save(best, checkpoint.load(best) | {"epoch": 7})
        return measured(result, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "_measured", mixed)
        with pytest.raises(ValueError, match=r"epoch 0, as `.*result\.json` says\. Found .* 7"):
            make(job(), tmp_path)
    assert not (folder / RECORD).exists()


def test_an_unfinished_run_half_deleted_is_not_written_down_as_a_refusal(tmp_path: Path) -> None:
    make(job(), tmp_path)
    folder = job().folder(tmp_path)
    (folder / RECORD).unlink()
    shutil.rmtree(folder / "checkpoints")
    for name in ("metrics.jsonl", "result.json"):
        with pytest.raises(ValueError, match="half deleted"):
            make(job(), tmp_path)
        assert not (folder / FAILED).exists()
        (folder / "metrics.jsonl").unlink(missing_ok=name == "result.json")


def test_a_damaged_choice_is_not_written_down_as_a_refusal(tmp_path: Path) -> None:
    tuned = job(LOSSES, tuned=2)
    tuned.search(tmp_path).mkdir(parents=True)
    chosen(tuned, tmp_path).write_text("{")
    with pytest.raises(ValueError, match=r"chosen-2\.json` should hold hyper-parameters"):
        make(tuned, tmp_path)
    assert not tuned.folder(tmp_path).exists()


def test_tables_are_paired_by_seed(compared: Path) -> None:
    board = boards(compared)[SMALL.label, 0]
    line = next(line for line in board.lines if line.method.startswith("ogm_ge"))
    mine, joint = (
        {seed: run["test"]["accuracy"] for seed, run in board.runs[name].items()}
        for name in (line.method, "joint")
    )
    assert line.over_joint == paired(mine, joint)
    assert line.reference == "joint"
    assert line.mechanism == line.over_joint
    assert board.best in ("joint", "unimodal_losses")
    assert 0 <= line.harm <= 1
    assert f"| *joint* {DAGGER} | 2 |" in board_markdown(board)


def given(out: Path, **more: object) -> argparse.Namespace:
    plain = {
        "data": SMALL.label, "methods": "joint", "seeds": 1, "epochs": 1, "search": None,
        "patience": None, "budget": None, "executor": "local", "slurm": [], "jobs": 1,
        "cost": False,
    }  # fmt: skip
    return argparse.Namespace(**{**plain, "out": out, **more})


class Task:
    """A call in this process, made when it is looked at."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def running(self) -> bool:
        return True

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.call()


class Here:
    """An executor in this process; the process of a run is lost where `lost` says so."""

    room, pause = 2, 0.0

    def __init__(self, lost: Callable[[Job], bool] = lambda _: False) -> None:
        self.lost = lost
        self.begun: list[Job] = []

    def submit(self, make: Callable[..., Any], runs: Any) -> list[Task]:
        return [Task(lambda run=run: self._call(make, run)) for run in runs]

    def _call(self, make: Callable[..., Any], run: Any) -> Any:
        self.begun.append(run[0])
        if self.lost(run[0]):
            raise Lost("it was killed")
        return make(*run)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """The command with its runs in this process."""
    executor = Here()

    @contextmanager
    def local(_: int) -> Iterator[Executor]:
        yield executor

    monkeypatch.setattr(comparison, "local", local)
    return executor


def outcomes(jobs: list[Job], out: Path, executor: Here, pace: Pace | None = None) -> list[str]:
    found = work(jobs, out, executor, pace or Pace())
    return [outcome.what for _, outcome in found if outcome.what != "begun"]


def test_the_command_goes_on_where_it_was(
    compared: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(compared, methods="joint,unimodal_losses", seeds=2)) == 0
    assert "The best yardstick is" in capsys.readouterr().out
    assert (compared / "table.csv").read_text().count("\n") == 4
    assert not here.begun


def test_what_is_named_twice_is_made_once(
    compared: Path, tmp_path: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(compared, tmp_path / "out")
    twice = f"{SMALL.label},{SMALL.label}"
    assert main(given(out, data=twice, methods="joint,unimodal_losses,joint", seeds=3)) == 0
    assert here.begun == [job(JOINT, 2), job(LOSSES, 2)]
    assert "busy" not in capsys.readouterr().err


def test_tables_are_written_by_one_process_at_a_time(compared: Path, here: Here) -> None:
    assert not here.begun
    with ThreadPoolExecutor(4) as pool:
        texts = set(pool.map(comparison.write, [compared] * 12))
    assert texts == {(compared / "table.md").read_text()}


def test_costs_are_measured_on_demand_and_once(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = given(compared, methods="joint,unimodal_losses", seeds=2, cost=True)
    assert main(asked) == 0
    said = capsys.readouterr()
    assert "| FLOPs | memory | step |" in said.out and "costs 2/2" in said.err
    assert main(asked) == 0
    assert "costs" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "name", "near"),
    [
        ("data", "laten2", "latent2"),
        ("methods", "ogmge", "ogm_ge"),
        ("methods", "ogm_ge:alpa=1", "alpha"),
    ],
)
def test_unknown_names_are_refused(tmp_path: Path, what: str, name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"Did you mean `{near}`"):
        main(given(tmp_path, **{what: name}))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = job().folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / RECORD).write_text("{")
    with pytest.raises(ValueError, match="should hold a record"):
        boards(tmp_path)


# ── what a folder may hold ──────────────────────────────────────────────────────────────────────


def test_another_configuration_in_the_same_folder_is_refused(compared: Path, here: Here) -> None:
    before = (job().folder(compared) / RECORD).read_bytes()
    with pytest.raises(ValueError, match=r"`epochs = 1` in .*`epochs = 2` is asked for.*`--out`"):
        main(given(compared, epochs=2))
    with pytest.raises(ValueError, match="`patience = None`"):
        main(given(compared, patience=3))
    assert (job().folder(compared) / RECORD).read_bytes() == before
    assert not here.begun


def test_an_unfinished_run_of_another_configuration_is_refused(tmp_path: Path) -> None:
    make(job(), tmp_path)
    (job().folder(tmp_path) / RECORD).unlink()
    with pytest.raises(ValueError, match="hold one configuration"):
        make(Job(SMALL, JOINT, 0, 2), tmp_path)
    assert not (job().folder(tmp_path) / FAILED).exists()


@pytest.mark.parametrize("name", ["config.json", "predictions.safetensors"])
def test_a_folder_half_deleted_is_named_and_left(compared: Path, tmp_path: Path, name: str) -> None:
    out = shutil.copytree(compared, tmp_path / "out")
    (job().folder(out) / name).unlink()
    with pytest.raises(ValueError, match=f"should hold `{name}`.*delete the whole folder"):
        main(given(out))
    shutil.rmtree(job().folder(out))
    assert make(job(), out) == "made"
    assert told(job(), out) == told(job(), compared)


def test_checkpoints_of_a_finished_run_may_be_deleted(compared: Path, tmp_path: Path) -> None:
    out = shutil.copytree(compared, tmp_path / "out")
    shutil.rmtree(job().folder(out) / "checkpoints")
    check(job(), out)
    assert make(job(), out) == "kept"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", [RECORD, "config.json"])
def test_what_a_newer_version_wrote_is_named(compared: Path, tmp_path: Path, name: str) -> None:
    out = shutil.copytree(compared, tmp_path / "out")
    path = job().folder(out) / name
    plain = json.loads(path.read_bytes())
    (plain if name == RECORD else plain["experiment"]).update({"format": 2})
    path.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match="version"):
        main(given(out))


def test_a_full_disk_ends_the_work_and_the_rest_is_made_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(seed=seed) for seed in range(4)]
    assert outcomes(jobs[:1], tmp_path, Here()) == ["made"]
    kept = (jobs[0].folder(tmp_path) / RECORD).read_bytes()

    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", full)
        found = list(work(jobs, tmp_path, Here(), Pace()))
    ended = [outcome for _, outcome in found if outcome.what != "begun"]
    assert [outcome.what for outcome in ended] == ["kept", "unwritable", "unwritable", "left"]
    assert "No space left on device" in ended[1].why
    assert outcomes(jobs, tmp_path, Here()) == ["kept", "made", "made", "made"]
    assert (jobs[0].folder(tmp_path) / RECORD).read_bytes() == kept


# ── time, interruption, kills ───────────────────────────────────────────────────────────────────


def test_no_run_begins_that_should_not_end_in_time(tmp_path: Path) -> None:
    make(job(), tmp_path)
    record = job().folder(tmp_path) / RECORD
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"wall": 100.0}))
    pace = Pace(budget=50)
    executor = Here()
    assert outcomes([job(), job(seed=1)], tmp_path, executor, pace) == ["kept", "left"]
    assert not executor.begun
    pace.ends += 60
    assert outcomes([job(), job(seed=1)], tmp_path, executor, pace) == ["kept", "made"]


def test_a_damaged_time_is_named(tmp_path: Path) -> None:
    path = job().folder(tmp_path) / RECORD
    path.parent.mkdir(parents=True)
    path.write_text('{"wall": "long"}')
    with pytest.raises(ValueError, match=r"record\.json.*`wall = 'long'`"):
        Pace().note(job(), tmp_path)


def test_a_pace_is_that_of_the_method_or_of_the_data_set(tmp_path: Path) -> None:
    for seed, wall in enumerate((2.0, 4.0)):
        path = job(seed=seed).folder(tmp_path) / RECORD
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"wall": wall}))
    pace = Pace()
    pace.note(job(), tmp_path)
    pace.note(job(seed=1), tmp_path)
    assert pace.expected(job(seed=2)) == pace.expected(job(LOSSES)) == 3.0
    pace.ends = 10.0
    assert pace.latest(job(seed=2)) == 6.0
    assert Pace().latest(Job(Choice("digits"), JOINT, 0)) == float("inf")


def test_a_spent_budget_leaves_a_table_and_says_so(
    compared: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(compared, seeds=3, budget=1e-9)) == 75
    said = capsys.readouterr()
    assert "| *joint*" in said.out
    assert "1 run left. The same command makes the rest." in said.err
    assert not here.begun


def test_ctrl_c_says_what_is_kept(
    compared: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: Job) -> bool:
        raise KeyboardInterrupt

    here.lost = interrupt
    assert main(given(compared, seeds=4)) == 130
    assert "2 of 4 runs are finished and kept" in capsys.readouterr().err


def test_a_run_whose_process_is_killed_is_begun_again_once(tmp_path: Path) -> None:
    once = Here(lost=lambda job: once.begun.count(job) == 1)
    assert outcomes([job()], tmp_path, once) == ["made"]
    always = Here(lost=lambda job: job.seed == 1)
    assert sorted(outcomes([job(seed=1), job(seed=2)], tmp_path, always)) == ["lost", "made"]
    assert always.begun.count(job(seed=1)) == making.TRIES


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("error", [RuntimeError("it broke"), OSError("it broke")])
def test_a_fault_of_one_run_leaves_the_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    whole = making.train

    def train(experiment: Any, *more: Any, **options: Any) -> Any:
        if experiment.seed == 0:
            raise error
        return whole(experiment, *more, **options)

    monkeypatch.setattr(making, "train", train)
    assert main(given(tmp_path, seeds=2)) == 1
    told = capsys.readouterr().err
    assert "seed 0: fault: " in told and "it broke" in told
    assert make(job(seed=1), tmp_path) == "kept"


@pytest.mark.parametrize("then", ["made", "busy"])
def test_what_another_process_was_busy_with_may_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here, then: str
) -> None:
    """Made by the other one before the tables were written, or not yet."""
    folder = job().folder(tmp_path)
    folder.parent.mkdir(parents=True)
    other = FileLock(folder.parent / f".{folder.name}.lock")
    whole = comparison.write

    def write(out: Path) -> str:
        if then == "made":
            other.release()
            assert make(job(), out) == "made"
        return whole(out)

    monkeypatch.setattr(comparison, "write", write)
    with other:
        assert main(given(tmp_path, methods="joint")) == (0 if then == "made" else 1)
    assert here.begun == [job()]


@pytest.mark.xdist_group("distributed")
def test_a_killed_comparison_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """The whole command, killed; then another one at the same time as a process beside it."""
    out = tmp_path / "out"
    methods = [JOINT, Choice("unimodal_init")]
    options = ["--epochs", "2", "--seeds", "3", "--out", str(out), "--jobs", "2"]
    words = ["compare", "--data", SMALL.label, "--methods", "joint,unimodal_init", *options]

    def started() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "equivox.cli", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, **quiet)

    def finished() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.glob("runs/*/*/*/record.json")}

    first = started()
    while not (kept := finished()):
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept |= finished()
    second = started()
    time.sleep(1)  # any moment will do
    outcomes(run_jobs([SMALL], methods, 3, 2), out, Here())
    assert second.wait() in (0, 1)  # 1 where the other was busy with a run
    assert len(finished()) == 6
    assert {path: finished()[path] for path in kept} == kept
    twin = Job(SMALL, Choice("unimodal_init"), 2, 2)
    make(twin, tmp_path / "alone")
    assert told(twin, out) == told(twin, tmp_path / "alone")


# ── what is asked for ───────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("here")
def test_one_seed_works_and_says_that_it_tells_nothing(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(compared)) == 0
    assert "one seed says nothing" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_more_processes_than_cores_are_allowed_and_told(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(compared, jobs=1000)) == 0
    assert "1000 processes share" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--search", "0"],
        ["--search", "-3"],
        ["--jobs", "0"],
        ["--seeds", "0"],
        ["--budget", "soon"],
    ],
)
def test_numbers_that_cannot_be_are_refused(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--data", SMALL.label, "--out", str(tmp_path / "x"), *words])
    assert ended.value.code == 2
    assert f"{words[0]}: it should be" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_one_trial_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 trials or more, for the first has the defaults"):
        main(given(tmp_path / "x", search=1))
    assert not (tmp_path / "x").exists()


def test_the_seeds_of_runs_and_trials_are_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the trials'"):
        main(given(tmp_path, seeds=SEARCH_SEED + 1))


# ── sharing ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["unimodal_init:alone_epochs=2", "umt:teacher_epochs=2"])
def test_shared_trainings_change_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also where the other method has trained what this one needs."""
    mine, other = (
        job(Choice.parse(name)),
        job(Choice.parse("unimodal_init:alone_epochs=2:freeze=False")),
    )
    make(other, tmp_path / "shared")
    make(mine, tmp_path / "shared")
    with monkeypatch.context() as patch:
        patch.setattr(making, "Shared", lambda *_: lambda _, __, make: make())
        make(mine, tmp_path / "alone")
    assert told(mine, tmp_path / "shared") == told(mine, tmp_path / "alone")
    predictions = [
        (mine.folder(tmp_path / which) / "predictions.safetensors").read_bytes()
        for which in ("shared", "alone")
    ]
    assert predictions[0] == predictions[1]

    assert len(list((tmp_path / "shared" / "shared").glob("*/*/manifest.json"))) == 2
    taken = json.loads((mine.folder(tmp_path / "shared") / "shared.json").read_bytes())
    assert len(taken) == 2
    assert not (other.folder(tmp_path / "shared") / "shared.json").exists()


def test_what_differs_is_not_shared(tmp_path: Path) -> None:
    """Another seed, other epochs alone, other rates of the encoders; the same again is."""
    rates = Choice("unimodal_init+modality_lr", {"alone_epochs": 1, "factors": {"hard": 2.0}})
    once, twice = (Choice("unimodal_init", {"alone_epochs": n}) for n in (1, 2))
    for number, other in enumerate((job(once), job(once, 1), job(twice), job(rates)), start=1):
        make(other, tmp_path)
        assert len(list((tmp_path / "shared").glob("*/*/manifest.json"))) == 2 * number
    make(job(Choice("unimodal_init", {"alone_epochs": 1, "freeze": False})), tmp_path)
    assert len(list((tmp_path / "shared").glob("*/*/manifest.json"))) == 8


def test_a_damaged_shared_training_is_made_again(tmp_path: Path) -> None:
    first = Choice.parse("unimodal_init:alone_epochs=1")
    make(job(first), tmp_path)
    for path in (tmp_path / "shared").glob("*/*/tensors.safetensors"):
        path.write_bytes(b"{")
    shutil.rmtree(job(first).folder(tmp_path))
    make(job(first), tmp_path)
    make(job(first), tmp_path / "anew")
    assert told(job(first), tmp_path) == told(job(first), tmp_path / "anew")
