"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from equivox import cli, console, methods
from equivox.bench.training import Result
from equivox.commands import train as train_command

SHORT = ["--data", "latent2", "--epochs", "1", "--option", "samples=600", "--quiet"]


def started(*words: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "equivox.cli", *words]
    path = os.pathsep.join([str(Path(cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, **pipes, **options)


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from equivox import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'lightning', 'numpy', 'rich', 'torchmetrics'} & set(sys.modules)\n"
        "sys.exit(f'imported: {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


def test_every_option_has_help() -> None:
    parser, commands = cli._parsers()
    for each in (parser, *commands.values()):
        for action in each._actions:
            assert action.help, (each.prog, action)
        assert each.format_help()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian"], "Found `trian`. Did you mean `train`?"),
        (["train", "--sede", "1"], "Found `--sede`. Did you mean `--seed`?"),
        (["methods", "--categroy=data"], "Did you mean `--category`?"),
        (["methods", "--category", "optimisation"], "Did you mean `optimization`?"),
        (["train", *SHORT, "--out", "x", "--method", "ogmge"], "Did you mean `ogm_ge`?"),
        (["train", "--data", "latnet2", "--out", "x"], "Did you mean `latent2`?"),
        (["train", *SHORT, "--out", "x", "--option", "sampels=6"], "Did you mean `samples`?"),
        (["train", *SHORT, "--out", "x", "--optimizer", "adm"], "Did you mean `adam`?"),
        (
            ["train", *SHORT, "--out", "x", "--method", "ogm_ge", "--set", "alfa=1.0"],
            "Did you mean `alpha`?",
        ),
        (["train", *SHORT, "--out", "x", "--strategy", "dpp"], "Did you mean `ddp`?"),
        (["train", *SHORT, "--out", "x", "--precision", "8"], "precision should be a known one"),
        (["data", "check", "mfeat", "--jsn"], "Did you mean `--json`"),
        (["train", *SHORT, "--out", "x", "--precision", "16"], "needs a GPU"),
        (["train", *SHORT, "--out", "x", "--device", "cuda", "--devices", "9"], "`device"),
        (["train", *SHORT, "--out", "x", "--schedule", "step"], "works with"),
        (["train", *SHORT, "--out", "x", "--schedule-option", "gamma=1"], "no schedule"),
        (
            ["train", *SHORT, "--out", "x", "--accumulate", "2", "--batch-size", "600"],
            "larger than an epoch",
        ),
        (["train", "--out", "x"], "needs `--data`"),
        (["train", "--data", "latent2"], "needs `--out`"),
        (["train", *SHORT, "--out", "x", "--resume", "y"], "stays in its folder"),
    ],
)
def test_what_cannot_be_ends_with_two_and_the_nearest_name(
    words: list[str],
    hint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert hint in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train", "--epochs", "many"],
        ["train", "--set", "alpha"],
        ["train", "--checkpoint-every", "0"],
        ["demo", "--seeds", "0"],
        ["demo", "--budget", "-3"],
    ],
)
def test_what_cannot_be_read_ends_with_two(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_methods_lists_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods", "--json"]) == 0
    found = {entry["key"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(methods.names()) <= set(found)
    assert found["ogm_ge"]["implemented"] is True
    assert found["ogm_ge"]["fidelity"] == "official"
    assert cli.main(["methods", "--category", "yardstick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["key", "name", "category", "venue", "fidelity"]
    assert any(line.startswith("joint ") for line in lines)
    assert not any(line.startswith("ogm_ge ") for line in lines)


def test_train_and_resume(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = ["train", *SHORT, "--method", "ogm_ge", "--set", "alpha=0.8", "--set", "noise=false"]
    assert cli.main([*words, "--seed", "3", "--lr", "0.01", "--out", out]) == 0
    printed = capsys.readouterr()
    assert out in printed.out
    assert printed.err == ""
    result = Result.read(tmp_path / "run")
    assert result.experiment.arguments == {"alpha": 0.8, "noise": False}
    assert (result.experiment.seed, result.experiment.lr) == (3, 0.01)
    assert f"{result.last['test']['accuracy']:.4f}" in printed.out
    assert cli.main(["train", "--resume", out]) == 0
    assert Result.read(tmp_path / "run") == result


def test_train_takes_the_settings_of_a_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", *SHORT, "--out", str(out), "--precision", "bf16", "--accumulate", "2"]
    words += ["--schedule", "multistep", "--schedule-option", "milestones=[1,2]", "--warmup", "1"]
    assert cli.main([*words, "--patience", "5", "--checkpoint-every", "0.001"]) == 0
    found = Result.read(out).experiment
    assert (found.precision, found.accumulate, found.warmup, found.patience) == ("bf16", 2, 1, 5)
    assert (found.schedule, found.schedule_options) == ("multistep", {"milestones": [1, 2]})


def test_a_folder_of_another_run_is_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *SHORT, "--out", str(out)]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert cli.main(["train", *SHORT, "--seed", "9", "--out", str(out)]) == 1
    assert "another run" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(out), "--seed", "9"]) == 2
    assert "Found `seed = 0`" in capsys.readouterr().err
    (out / "config.json").write_text("{")
    assert cli.main(["train", "--resume", str(out)]) == 2
    assert "damaged" in capsys.readouterr().err
    (out / "config.json").write_bytes(before[out / "config.json"])
    assert {path: path.read_bytes() for path in before} == before
    assert cli.main(["train", "--resume", str(tmp_path)]) == 1
    assert "Found none" in capsys.readouterr().err


def test_places_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["train", *SHORT, "--out", str(tmp_path / "file" / "run")]) == 1
    assert "can be written" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        assert cli.main(["train", *SHORT, "--out", str(tmp_path / "run")]) == 1
    finally:
        tmp_path.chmod(0o755)
    assert "can be written" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert cli.main(["train", *SHORT, "--out", str(tmp_path / "run")]) == 1
    assert 'pip install "equivox[bench]"' in capsys.readouterr().err


def test_killed_in_the_middle_of_an_epoch_and_resumed(tmp_path: Path) -> None:
    """The same weights and metrics as without the kill, in processes of their own."""
    words = ["--data", "latent2", "--method", "ogm_ge", "--epochs", "4"]
    run = started("train", *words, "--out", str(tmp_path / "cut"))
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("epoch 1"):
            run.send_signal(signal.SIGTERM)
            break
    _, err = run.communicate(timeout=120)
    assert run.returncode == console.TERMINATED, err
    assert "--resume" in err
    assert not (tmp_path / "cut" / "result.json").exists()
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert 1 <= len(lines) < 4
    assert cli.main(["train", "--resume", str(tmp_path / "cut"), "--quiet"]) == 0
    assert cli.main(["train", *words, "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    for name in ("metrics.jsonl", "predictions.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    last = [tmp_path / name / "checkpoints" / "last" for name in ("cut", "whole")]
    tensors = [(folder / "tensors.safetensors").read_bytes() for folder in last]
    assert tensors[0] == tensors[1]


def test_interrupted_from_the_keyboard(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "_print_epoch", pressed)
    words = ["train", "--data", "latent2", "--epochs", "2", "--option", "samples=600"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 130
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    assert cli.main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 0


def test_demo_is_given_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[argparse.Namespace] = []
    module = types.ModuleType("equivox.demo.command")
    module.main = lambda arguments: given.append(arguments) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "equivox.demo.command", module)
    assert cli.main(["demo", "--seeds", "5", "--budget", "60", "--out", "there"]) == 0
    assert (given[0].seeds, given[0].budget, given[0].out) == (5, 60.0, Path("there"))
    assert cli.main(["demo"]) == 0
    assert given[1].seeds >= 3


@pytest.mark.parametrize("state", ["broken", "note"])
def test_doctor_ends_with_one_where_something_is_broken(
    state: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from equivox import doctor

    monkeypatch.setattr(doctor, "gather", lambda: None)
    monkeypatch.setattr(doctor, "diagnose", lambda _: [doctor.Finding(state, "ill", "a cure")])
    assert cli.main(["doctor"]) == (1 if state == "broken" else 0)
    assert "a cure" in capsys.readouterr().out


def test_a_terminal_gets_a_table_with_the_brackets_in_its_cells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.show(("cure",), [('pip install "equivox[bench]"',)])
    assert '"equivox[bench]"' in capsys.readouterr().out


def test_a_reader_that_had_enough_is_no_error() -> None:
    run = started("methods", "--json")
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait(timeout=60) == 1
