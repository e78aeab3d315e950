"""TensorBoard's events of a run: every epoch once, also after it was resumed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from equivox import cli
from equivox.bench.folder import read_metrics
from equivox.bench.loop import Training

SHORT = ["train", "--data", "latent2", "--option", "samples=600", "--epochs", "4", "--quiet"]
RATES = ["--schedule", "step", "--schedule-option", "step_size=2"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_every_epoch_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    words = [*SHORT, *RATES, "--tensorboard", "--out", str(tmp_path / "run")]
    save, saved = Training.save, []

    def cut(self: Training) -> None:
        saved.append(0)
        if len(saved) == 3:  # the third epoch's metrics and events are written, no checkpoint is
            raise KeyboardInterrupt
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", cut)
        assert cli.main(words) == 130
    resume = ["train", "--quiet", "--tensorboard", "--resume", str(tmp_path / "run")]
    assert cli.main(resume) == 0
    found = scalars(tmp_path / "run")
    records = read_metrics(tmp_path / "run")
    assert found.keys() == {
        "train/loss",
        "train/lr",
        *(f"validation/{name}" for name in ("loss", "accuracy", "f1")),
    }
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4]
    for name, read in (
        ("train/loss", lambda record: record["loss"]),
        ("train/lr", lambda record: record["lr"]),
        ("validation/accuracy", lambda record: record["validation"]["accuracy"]),
    ):
        assert [value for _, value in found[name]] == pytest.approx([read(r) for r in records])


def test_without_tensorboard_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert cli.main([*SHORT, "--tensorboard", "--out", str(tmp_path / "run")]) == 1
    printed = capsys.readouterr().err
    assert "equivox[trackers]" in printed
    assert "equivox[bench]" not in printed
    assert not (tmp_path / "run").exists()
