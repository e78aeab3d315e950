"""Comparisons: folders that go on where they were, and tables that are paired and honest."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest
from filelock import FileLock

import equivox as ev
from equivox.bench.compare import (
    FAILED,
    RECORD,
    Choice,
    Job,
    choose,
    make,
    search_jobs,
    trials,
)
from equivox.bench.comparing import main
from equivox.bench.leaderboard import _holm, boards, markdown
from equivox.bench.statistics import paired

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


def test_choices_are_read_as_they_are_written() -> None:
    found = Choice.parse("avmnist:train_samples=3000:audio=audio_noisy")
    assert found.options == {"train_samples": 3000, "audio": "audio_noisy"}
    assert Choice.parse(found.label) == found
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


@pytest.mark.parametrize("lost", ["record.json", "result.json", "config.json"])
def test_what_a_kill_left_is_finished(compared: Path, tmp_path: Path, lost: str) -> None:
    """A run cut before it began, before its result or before its record ends the same."""
    expected = json.loads((job().folder(compared) / RECORD).read_bytes())
    make(job(), tmp_path)
    folder = job().folder(tmp_path)
    for name in ("record.json", "result.json", "config.json"):
        (folder / name).unlink()
        if name == lost:
            break
    assert make(job(), tmp_path) == "made"
    found = json.loads((folder / RECORD).read_bytes())
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}


def test_what_diverges_or_is_refused_is_told(tmp_path: Path) -> None:
    refused = Job(Choice.parse("latent_regression:samples=400"), Choice("mmcosine"), 0, 1)
    assert make(refused, tmp_path) == "made"
    told = json.loads((refused.folder(tmp_path) / FAILED).read_bytes())
    assert told["kind"] == "ValueError"
    assert "MMCosine" in told["error"]
    assert make(refused, tmp_path) == "kept"


def test_trials_begin_with_the_defaults_and_do_not_repeat() -> None:
    found = trials(ev.OGMGE, ("a", "b"), 100)
    assert found[0] == {}
    assert len({json.dumps(point, sort_keys=True) for point in found}) == len(found)
    assert trials(ev.OGMGE, ("a", "b"), 3) == found[:3]
    assert trials(ev.Joint, ("a", "b"), 5) == [{}]


def test_a_space_may_depend_on_the_modalities() -> None:
    points = trials(ev.ModalityLR, ("a", "b"), 100)[1:]
    assert {m for point in points for m in point["factors"]} == {"a", "b"}


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
    assert "| *joint* | 2 |" in markdown(board)


def test_holm_by_hand() -> None:
    values = {"a": [0.01, 0.02, 0.015], "b": [0.1, -0.1, 0.05], "c": [0.05, 0.05, 0.051]}
    differences = {
        n: paired(dict(enumerate(v)), dict.fromkeys(range(3), 0.0)) for n, v in values.items()
    }
    p = {name: d.p for name, d in differences.items()}
    found = _holm(differences)
    assert found["c"] == pytest.approx(3 * p["c"])
    assert found["a"] == pytest.approx(2 * p["a"])
    assert found["b"] == pytest.approx(max(p["b"], found["a"]))
    assert not any(math.isnan(x) for x in found.values())


def given(out: Path, **more: object) -> argparse.Namespace:
    plain = {"data": SMALL.label, "methods": "joint", "seeds": 1, "epochs": 1, "search": None}
    return argparse.Namespace(**{**plain, "out": out, "jobs": 1, **more})


def test_the_command_goes_on_where_it_was(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(compared, methods="joint,unimodal_losses", seeds=2)) == 0
    assert "The best yardstick is" in capsys.readouterr().out
    assert (compared / "table.csv").read_text().count("\n") == 4


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
