"""A run's folder that something happened to: a full disk, missing parts, another version."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from equivox.bench import checkpoint, folder, snapshot
from equivox.bench.experiment import Experiment
from equivox.bench.folder import BEST, LAST, Folder, provenance, read_metrics, versions
from equivox.bench.training import Result, Training, restored, train

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


@pytest.mark.parametrize("moment", [4, 6, 9, 14, 20, 26, 35, 42])
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
        "checkpoints/best/tensors.safetensors",
    ):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    "gone", ["metrics.jsonl", "result.json", "predictions.safetensors", "checkpoints/best"]
)
def test_a_file_that_can_be_made_again_is(gone: str, copy: Path, whole: Path) -> None:
    place = copy / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    train(RUN, copy, resume=True)
    assert Result.read(copy) == Result.read(whole)
    for name in ("metrics.jsonl", "predictions.safetensors", BEST / "tensors.safetensors"):
        assert (copy / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("gone", "error", "hint"),
    [
        ("config.json", FileNotFoundError, r"config\.json"),
        ("checkpoints/last/tensors.safetensors", ValueError, "missing"),
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


def test_a_run_of_which_only_the_best_checkpoint_is_left_is_refused(copy: Path) -> None:
    for name in ("metrics.jsonl", "result.json", "predictions.safetensors"):
        (copy / name).unlink()
    shutil.rmtree(copy / LAST)
    before = contents(copy)
    with pytest.raises(ValueError, match="half deleted"):
        train(RUN, copy, resume=True)
    assert contents(copy) == before


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "when there is room"),
        (errno.EROFS, "When it can be written again"),
        (errno.ENOENT, "When it can be written again"),
    ],
)
def test_room_is_asked_for_where_there_is_none(copy: Path, number: int, hint: str) -> None:
    error = OSError(number, os.strerror(number))
    with (
        pytest.raises(OSError, match=rf"{os.strerror(number)}\..*--resume") as raised,
        Folder(copy, RUN, resume=True)._writing(),
    ):
        raise error
    assert hint in str(raised.value)


def test_where_numbers_come_from_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = provenance()
    monkeypatch.setattr(folder, "_git", lambda *_: pytest.fail("git was started again"))
    monkeypatch.setattr(folder, "version", lambda *_: pytest.fail("it was looked up again"))
    assert provenance() == before
    versions().clear()
    assert provenance() == before


# ── a checkpoint of something else ──────────────────────────────────────────────────────────────


def changed(place: Path, **facts: Any) -> None:
    """A checkpoint of which some facts are others; those that are None are gone."""
    state = checkpoint.load(place) | facts
    checkpoint.save(place, {name: x for name, x in state.items() if x is not None})


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("lr", 0.5, r"`lr = 0\.05`, and `lr = 0\.5` is"),
        ("seed", 5, "`seed = 0`, and `seed = 5` is"),
        ("data_options", {"samples": 700}, "`data_options = "),
    ],
)
def test_a_checkpoint_of_another_experiment_is_refused(
    copy: Path, name: str, value: Any, hint: str
) -> None:
    told = checkpoint.load(copy / LAST)["experiment"] | {"lr": 0.05}
    changed(copy / LAST, experiment=told)
    other = Experiment.from_json(RUN.to_json() | {"lr": 0.05, name: value})
    (copy / "config.json").write_text(json.dumps({"experiment": other.to_json()}))
    before = contents(copy)
    with pytest.raises(ValueError, match=rf"Found in `.*last`: {hint}.*config\.json"):
        train(other, copy, resume=True)
    assert contents(copy) == before


def test_a_checkpoint_of_other_versions_is_told_and_gone_on_with(copy: Path, whole: Path) -> None:
    changed(copy / LAST, versions=versions() | {"torch": "2.0.0", "jax": "0.4"})
    with pytest.warns(UserWarning, match=r"torch 2\.0\.0 instead of .*, jax 0\.4 instead of none"):
        train(RUN, copy, resume=True)
    assert Result.read(copy) == Result.read(whole)


def test_a_checkpoint_that_does_not_say_of_what_it_is_is_read(copy: Path, whole: Path) -> None:
    changed(copy / LAST, experiment=None, versions=None)
    train(RUN, copy, resume=True)
    assert Result.read(copy) == Result.read(whole)


# ── the best checkpoint ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_cut_between_the_two_checkpoints_is_made_up_for(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Before the best one is written for the first, the second and the third time."""
    keep, places = Folder.keep, []

    def cut(self: Folder, place: Path, *rest: Any) -> None:
        if place == self.best and places.count(place) == kept:
            raise KeyboardInterrupt
        places.append(place)
        keep(self, place, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "keep", cut)
        with pytest.raises(KeyboardInterrupt):
            train(RUN, tmp_path)
    training = Training(RUN.resolved(data := RUN.load()), data)
    training.resume(Folder(tmp_path, RUN, resume=True))
    assert checkpoint.load(tmp_path / BEST)["epoch"] == kept
    train(RUN, tmp_path, resume=True)
    for name in ("tensors.safetensors", "state.json"):
        assert (tmp_path / BEST / name).read_bytes() == (whole / BEST / name).read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_run_that_wrote_the_best_checkpoint_first_goes_on(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions did, cut between the two."""

    def cut(training: Training) -> None:
        assert training.folder is not None
        if len(training.records) == 2:
            snapshot.keep_best(training, training.folder)
            raise KeyboardInterrupt
        save(training)

    save = Training.save
    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            train(RUN, tmp_path)
    train(RUN, tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_the_best_checkpoint_of_an_earlier_epoch_cannot_be_made_again(copy: Path) -> None:
    changed(copy / LAST, best=1)
    with pytest.raises(ValueError, match=r"epoch 1, as `.*last` says\. Found one of epoch 2"):
        train(RUN, copy, resume=True)
    shutil.rmtree(copy / BEST)
    with pytest.raises(FileNotFoundError, match=r"checkpoint should lie at .*best"):
        train(RUN, copy, resume=True)


def test_weights_in_the_middle_of_an_epoch_do_not_pass_for_the_best(copy: Path) -> None:
    changed(copy / LAST, rows=64)
    changed(copy / BEST, epoch=1)
    with pytest.raises(ValueError, match=r"should be of epoch 2.*Found one of epoch 1"):
        train(RUN, copy, resume=True)


def test_a_damaged_best_checkpoint_is_named_alone(copy: Path) -> None:
    file = copy / BEST / checkpoint.TENSORS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="Copy it again") as raised:
        train(RUN, copy, resume=True)
    assert str(BEST) in str(raised.value)
    assert str(LAST) not in str(raised.value)


def test_a_best_checkpoint_of_another_epoch_than_the_results_is_refused(copy: Path) -> None:
    restored(copy)
    changed(copy / BEST, epoch=1)
    with pytest.raises(ValueError, match=r"epoch 2, as `.*result\.json` says"):
        restored(copy)
