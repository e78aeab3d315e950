"""`equivox diagnose`: runs and files of models, conditions, exit codes, what is written."""

from __future__ import annotations

import html
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import cli
from equivox.bench import folder as folders
from equivox.bench.experiment import Experiment
from equivox.bench.loop import Training
from equivox.bench.training import restored, train
from equivox.diagnosis import command
from equivox.diagnosis.conditions import SHORT

MODEL = """
import torch
from beside import WIDTH
import equivox as ev

torch.manual_seed(0)
x = {m: torch.randn(600, 4) for m in ("a", "b")}
y = (x["a"][:, 0] > 0).long()
rows = {"train": range(0, 300), "validation": range(300, 350), "test": range(350, 600)}
loaders = {
    split: [({m: v[list(r)] for m, v in x.items()}, y[list(r)])] for split, r in rows.items()
}
nets = {m: torch.nn.Linear(4, WIDTH) for m in x}
model = ev.Multimodal(nets, ev.Concat({m: WIDTH for m in x}, 2))
task = ev.Classification(2)
balancer = ev.Balancer(model, task=task)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    train(Experiment("latent2", seed=3, epochs=2, data_options={"samples": 900}), path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "beside.py").write_text("WIDTH = 8\n")
    path = tmp_path / "mine.py"
    path.write_text(MODEL)
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if name in ("beside", "diagnosed_mine"):
            del sys.modules[name]


def diagnosed(*words: str) -> int:
    return cli.main(["diagnose", *words, "--epochs", "2"])


# ── runs ────────────────────────────────────────────────────────────────────────────────────────


def test_a_run(
    run: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/equivox", "diagnose", "my run"])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    page, state = tmp_path / "new" / "page.html", torch.get_rng_state()
    assert diagnosed(str(run), "--out", str(page)) == 0
    printed = capsys.readouterr()
    assert "easy" in printed.out and "hard" in printed.out and str(page) in printed.out
    assert printed.err == ""  # no bar outside a terminal
    assert page.read_text().startswith("<!doctype html>") or "<html" in page.read_text()
    plain = json.loads((tmp_path / "new" / "page.json").read_text())
    assert plain["receipt"]["experiment"]["seed"] == 3
    assert plain["receipt"]["run"] == str(run)
    assert plain["receipt"]["command"] == "equivox diagnose 'my run'"  # not that of the training
    assert "equivox diagnose 'my run'" in html.unescape(page.read_text())
    assert plain["samples"]["test"] == 360
    assert {path: path.read_bytes() for path in before} == before
    assert torch.equal(state, torch.get_rng_state())


def test_json_is_all_that_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnosed(str(run), "--json", "--fail-on", "joint>1") == 0
    plain = json.loads(capsys.readouterr().out)
    best = json.loads((run / "result.json").read_text())["best"]
    assert plain["headroom"]["joint"]["value"] == pytest.approx(best["test"]["accuracy"])
    assert plain["receipt"]["epoch"] == best["epoch"]


def test_the_selected_epoch_is_restored(run: Path) -> None:
    training = restored(run)
    best = json.loads((run / "result.json").read_text())["best"]
    assert not training.balancer.training
    assert training.evaluate("test")[0] == pytest.approx(best["test"])


def test_a_condition_that_holds_ends_with_three(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--fail-on", "imbalance>0.05", "--fail-on", "chance > 1", "--fail-on", "joint<=1")
    assert diagnosed(str(run), *words) == 3
    printed = capsys.readouterr()
    assert "`imbalance > 0.05` holds: found 0." in printed.err
    assert "`joint <= 1` holds" in printed.err and "chance" not in printed.err
    assert "hard" in printed.out


def test_a_recorded_run(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its result is that of one which was not; a cut neither loses nor doubles a number."""
    words = ["--data", "latent2", "--seed", "3", "--epochs", "2", "--option", "samples=900"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert cli.main(["train", *words, "--record", "--quiet", "--out", str(whole)]) == 0
    predicted = folders.PREDICTIONS
    assert (whole / predicted).read_bytes() == (run / predicted).read_bytes()

    update, made = Training._update, []

    def interrupting(self: Training, batch: Any) -> None:
        update(self, batch)
        made.append(batch)
        if len(made) == len(self.loader) + 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", interrupting)
        assert cli.main(["train", *words, "--record", "--quiet", "--out", str(cut)]) == 130
    assert cli.main(["train", "--resume", str(cut), "--quiet"]) == 0  # it goes on being recorded
    assert (cut / folders.METRICS).read_bytes() == (whole / folders.METRICS).read_bytes()

    capsys.readouterr()
    assert diagnosed(str(cut), "--json") == 0
    dynamics = json.loads(capsys.readouterr().out)["dynamics"]
    assert dynamics["epochs"] == [0, 1] and set(dynamics["onset"]) == {"easy", "hard"}
    assert None not in dynamics["curves"]["gradient_norm"]["hard"]
    of_run = command.of_folder(run)
    assert of_run["dynamics"] is None


def copied(run: Path, to: Path) -> Path:
    for path in run.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


def without_result(path: Path) -> None:
    (path / "result.json").unlink()


def without_config(path: Path) -> None:
    (path / "config.json").unlink()


def without_checkpoint(path: Path) -> None:
    for file in (path / folders.BEST).iterdir():
        file.unlink()
    (path / folders.BEST).rmdir()


def cut_checkpoint(path: Path) -> None:
    file = path / folders.BEST / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def unknown_field(path: Path) -> None:
    plain = json.loads((path / "config.json").read_text())
    plain["experiment"]["flavour"] = "sweet"
    (path / "config.json").write_text(json.dumps(plain))


def other_format(path: Path) -> None:
    file = path / folders.BEST / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))


def other_network(path: Path) -> None:
    plain = json.loads((path / "config.json").read_text())
    plain["experiment"]["fusion"] = "gated"
    (path / "config.json").write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (without_result, 1, "equivox train --resume"),
        (without_config, 1, "Found none"),
        (without_checkpoint, 1, "A checkpoint should lie at"),
        (cut_checkpoint, 2, "bytes in `tensors.safetensors`"),
        (unknown_field, 2, "of another version"),
        (other_format, 2, "format should be 1. Found 99"),
        (other_network, 2, "weights of a run should be those of its network"),
    ],
)
def test_runs_that_are_incomplete_or_of_another_version(
    spoil: Any,
    code: int,
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = copied(run, tmp_path / "run")
    spoil(path)
    page = tmp_path / "page.html"
    assert diagnosed(str(path), "--out", str(page)) == code
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err
    assert printed.out == "" and not page.exists()


# ── files ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("names", ["model,loaders,task", "balancer, loaders"])
def test_a_file(names: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = list(sys.path)
    assert diagnosed(f"{file}:{names}", "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["modalities"] == ["a", "b"]
    assert plain["receipt"]["file"] == f"{file}:{names}"
    assert sys.path == path


def test_another_metric(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnosed(f"{file}:balancer,loaders", "--json", "--metric", "f1") == 0
    assert json.loads(capsys.readouterr().out)["metric"] == "macro F1"
    assert diagnosed(f"{file}:balancer,loaders", "--metric", "mae") == 2
    assert "Found `mae`. Known are: accuracy, auroc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        ("{}:modle,loaders,task", 2, "Found no `modle`. Did you mean `model`?"),
        ("{}:model", 2, "file.py:model,loaders"),
        ("{}:model,,task", 2, "file.py:model,loaders"),
        ("{}:model, loaders", 2, "Found no task. Write `{}:model,loaders,task`"),
        ("{}:model,nets,task", 2, "Found no ['train', 'validation', 'test']"),
        ("{}:model,task", 2, "should be a mapping by split. Found `task`"),
        ("{}:nets,loaders,task", 2, "Found `dict`"),
        ("{}x.py:model,loaders", 1, "Found none at"),
        ("nowhere", 2, "which is neither"),
    ],
)
def test_specs_that_cannot_be(
    spec: str, code: int, message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnosed(spec.format(file)) == code
    assert message.format(file) in capsys.readouterr().err


def test_a_file_that_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.py"
    path.write_text("model = 1 / 0\n")
    assert diagnosed(f"{path}:model,loaders") == 2
    assert "Found `ZeroDivisionError`" in capsys.readouterr().err
    assert "diagnosed_broken" not in sys.modules


# ── where the page goes ─────────────────────────────────────────────────────────────────────────


def test_pages_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "diagnose", None)
    (tmp_path / "file").touch()

    def full(**options: object) -> None:
        raise OSError(28, f"No space left in {options['dir']}")

    with monkeypatch.context() as patch:  # where permissions would allow it
        patch.setattr(command.tempfile, "TemporaryFile", full)
        assert diagnosed("anything", "--out", str(tmp_path / "new" / "x.html")) == 1
    assert f"Found `{tmp_path}`, where one cannot: No space" in capsys.readouterr().err
    for place, code in ((tmp_path, 1), (tmp_path / "file" / "x.html", 1), (tmp_path / "x.json", 2)):
        assert diagnosed("anything", "--out", str(place)) == code
        assert "`--out` should" in capsys.readouterr().err


def test_the_nearest_name_is_given_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "diagnose", None)
    assert diagnosed("anything", "--fail-on", "imbalanse>0.1") == 2
    assert "Found `imbalanse`. Did you mean `imbalance`?" in capsys.readouterr().err


def test_the_help_names_every_short_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["diagnose", "--help"])
    told = capsys.readouterr().out.replace(",", " ").split()
    assert set(SHORT) <= set(told)


# ── progress ────────────────────────────────────────────────────────────────────────────────────


def test_a_terminal_is_told_what_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with command.progress() as told:
        assert told is not None
        told("the network", 0.0)
        told("audio alone, epoch 3", 0.5)
    printed = capsys.readouterr()
    assert printed.out == "" and "audio alone, epoch 3" in printed.err
    assert "s left" in printed.err


def test_without_rich_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    finder = types.SimpleNamespace(find_spec=lambda _: None)
    monkeypatch.setattr(command.importlib, "util", finder)
    with command.progress() as told:
        assert told is None
