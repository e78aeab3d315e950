"""A run's folder that something happened to: a full disk, missing parts, another version."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from equivox.bench import checkpoint
from equivox.bench.experiment import Experiment
from equivox.bench.folder import read_metrics
from equivox.bench.training import Result, train

RUN = Experiment("latent2", "ogm_ge", epochs=3, data_options={"samples": 600})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(RUN, folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("moment", [2, 4, 8, 11, 16, 20, 26])
def test_a_full_disk_loses_nothing(
    moment: int, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the n-th synced write on: metrics, either checkpoint, or the result."""
    sync, made = os.fsync, []

    def full(handle: int) -> None:
        made.append(handle)
        if len(made) >= moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*--resume"):
            train(RUN, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    last = tmp_path / "run" / "checkpoints" / "last"
    if checkpoint.exists(last):
        assert len(checkpoint.load(last)["records"]) >= 1
    train(RUN, tmp_path / "run", resume=True)
    for name in (
        "metrics.jsonl",
        "predictions.safetensors",
        "checkpoints/last/tensors.safetensors",
    ):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("gone", ["metrics.jsonl", "result.json", "predictions.safetensors"])
def test_a_file_that_can_be_made_again_is(gone: str, copy: Path, whole: Path) -> None:
    (copy / gone).unlink()
    train(RUN, copy, resume=True)
    assert Result.read(copy) == Result.read(whole)
    for name in ("metrics.jsonl", "predictions.safetensors"):
        assert (copy / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("gone", "error", "hint"),
    [
        ("config.json", FileNotFoundError, r"config\.json"),
        ("checkpoints/last/tensors.safetensors", ValueError, "missing"),
        ("checkpoints/best", FileNotFoundError, r"checkpoint should lie at .*best"),
        ("checkpoints/last", ValueError, "half deleted"),
        ("checkpoints", ValueError, "half deleted"),
    ],
)
def test_a_part_that_cannot_be_made_again_is_named_and_the_rest_kept(
    gone: str, error: type[Exception], hint: str, copy: Path
) -> None:
    place = copy / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    before = contents(copy)
    with pytest.raises(error, match=hint):
        train(RUN, copy, resume=True)
    assert contents(copy) == before


def test_a_run_that_was_cut_before_its_first_checkpoint_begins_anew(
    copy: Path, whole: Path
) -> None:
    for name in ("result.json", "predictions.safetensors"):
        (copy / name).unlink()
    shutil.rmtree(copy / "checkpoints")
    (copy / "metrics.jsonl").write_text(json.dumps(read_metrics(whole)[0]) + '\n{"epoch": 1, "l')
    train(RUN, copy, resume=True)
    assert (copy / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_configuration_of_a_newer_version_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["experiment"]["telepathy"] = True
    (copy / "config.json").write_text(json.dumps(config))
    before = contents(copy)
    with pytest.raises(ValueError, match=r"Found `'telepathy'`.*another version"):
        train(RUN, copy, resume=True)
    assert contents(copy) == before


def test_metrics_are_read_up_to_a_line_that_was_cut(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    lines: list[dict[str, Any]] = [{"epoch": 0}, {"epoch": 1}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"epoch": 2, "lo')
    assert read_metrics(tmp_path) == lines
