"""Several processes that train one run: the result is that of one, and they end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bench.parallel_runs import Runs

from equivox.bench import launching, parallel
from equivox.bench.experiment import Experiment
from equivox.bench.folder import read_metrics
from equivox.bench.training import Result, train
from equivox.distributed import rank

# 301 training samples: four batches of 64, and one of 45, of which two ranks leave one out.
ODD = Experiment("latent2", "ogm_ge", seed=1, epochs=2, data_options={"samples": 602}, devices=2)


@pytest.fixture(scope="module")
def pair() -> Iterator[Runs]:
    with Runs() as started:
        yield started


def alone(experiment: Experiment) -> Experiment:
    return Experiment.from_json(experiment.to_json() | {"devices": 1})


@pytest.mark.parametrize(
    ("method", "accumulate"),
    [("joint", 1), ("ogm_ge", 1), ("mmpareto", 1), ("ogm_ge", 4), ("smv", 1), ("reconboost", 1)],
)
def test_two_processes_give_what_one_does(
    pair: Runs, method: str, accumulate: int, tmp_path: Path
) -> None:
    """Of 640 samples 320 are trained on, five whole batches."""
    fields = {"data": "latent2", "method": method, "epochs": 2, "data_options": {"samples": 640}}
    arguments = {"warmup": 0} if method == "smv" else {}
    two = Experiment(**fields, arguments=arguments, devices=2, accumulate=accumulate)
    one = train(alone(two))
    first, second = pair.run(two, tmp_path / "run")
    assert one.balancer is not None
    for name, expected in one.balancer.state_dict().items():
        if name != "_extra_state":
            assert first["weights"][name] == second["weights"][name]
            found = torch.tensor(first["weights"][name], dtype=expected.dtype)
            found = found.reshape(expected.shape)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert first["last"]["test"] == pytest.approx(one.last["test"], rel=1e-3)
    assert first["last"] == second["last"]
    losses = [record["loss"] for record in read_metrics(tmp_path / "run")]
    assert losses == pytest.approx([record["loss"] for record in one.history], rel=1e-3)


def test_every_sample_is_measured_once(pair: Runs, tmp_path: Path) -> None:
    """Splits of odd lengths, whose last batches are uneven."""
    from safetensors.torch import load_file

    data = ODD.load()
    assert len(data.validation) % 2 or len(data.test) % 2
    pair.run(ODD, tmp_path / "run")
    kept = load_file(tmp_path / "run" / "predictions.safetensors")
    assert torch.equal(kept["target"], data.test.target)


def test_the_first_alone_writes(pair: Runs, tmp_path: Path) -> None:
    first, second = pair.run(ODD, tmp_path / "run")
    assert first["written"].count("last") == 2
    assert second["written"] == []


@pytest.mark.parametrize("end", [2, 6, 9])
def test_two_processes_resume_bit_for_bit(pair: Runs, end: int, tmp_path: Path) -> None:
    """Only the second is asked to end; both end after the same update."""
    whole = pair.run(ODD, tmp_path / "whole")
    for ended in pair.run(ODD, tmp_path / "cut", end):
        assert "--resume" in ended["ended"]
    assert not (tmp_path / "cut" / "result.json").exists()
    resumed = pair.run(ODD, tmp_path / "cut")
    assert [r["weights"] for r in resumed] == [w["weights"] for w in whole]
    for name in (
        "metrics.jsonl",
        "predictions.safetensors",
        "checkpoints/last/tensors.safetensors",
    ):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_each_rank_takes_equal_consecutive_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "world", lambda: 2)
    parts = []
    for number in (0, 1):
        monkeypatch.setattr(parallel, "rank", lambda number=number: number)
        training, measuring = parallel.Share(range(11), block=4), parallel.Share(range(11))
        parts.append((list(training), list(measuring)))
        assert [len(training), len(measuring)] == [len(part) for part in parts[-1]]
    assert parts[0] == ([0, 1, 4, 5, 8], [0, 2, 4, 6, 8, 10])
    assert parts[1] == ([2, 3, 6, 7, 9], [1, 3, 5, 7, 9])


# ── starting and ending, in processes that Fabric starts ────────────────────────────────────────


def failing(how: str, _: Any) -> None:
    if rank() == 1 and how == "error":
        raise ValueError("the second rank does not like it")
    if rank() == 1 and how == "fault":
        raise RuntimeError("the second rank is at fault")
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    parallel.anywhere(True)  # would wait for ever


def test_a_rank_that_fails_ends_all_with_its_message() -> None:
    with pytest.raises(ValueError, match="the second rank does not like it"):
        launching.launch(partial(failing, "error"), "cpu", 2, unused=False)
    assert "MASTER_PORT" not in os.environ


def test_what_nobody_expected_comes_with_where_it_arose() -> None:
    with pytest.raises(RuntimeError, match=r"Traceback(.|\n)*, in failing(.|\n)* is at fault"):
        launching.launch(partial(failing, "fault"), "cpu", 2, unused=False)


def test_a_rank_that_is_killed_ends_all() -> None:
    with pytest.raises(ChildProcessError, match=r"SIGKILL.*--resume"):
        launching.launch(partial(failing, "kill"), "cpu", 2, unused=False)


def test_sigterm_to_the_parent_ends_all_with_a_checkpoint(pair: Runs, tmp_path: Path) -> None:
    run = [sys.executable, "-m", "equivox.cli", "train"]
    words = ["--data", "latent2", "--option", "samples=600", "--epochs", "60"]
    words += ["--devices", "2", "--strategy", "ddp"]
    command = [*run, *words, "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2 "):
            process.terminate()
            break
    _, err = process.communicate(timeout=200)
    assert process.returncode == 75, err
    assert "--resume" in err
    assert 2 <= len(read_metrics(tmp_path / "cut")) < 60
    experiment = Experiment("latent2", epochs=60, data_options={"samples": 600}, devices=2)
    pair.run(experiment, tmp_path / "whole")
    pair.run(experiment, tmp_path / "cut")
    assert Result.read(tmp_path / "cut").last == Result.read(tmp_path / "whole").last
    for name in (
        "metrics.jsonl",
        "predictions.safetensors",
        "checkpoints/last/tensors.safetensors",
    ):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_several_processes_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train in a folder"):
        train(ODD)
    with pytest.raises(ValueError, match=r'on "cpu" or "cuda". Found `device = "meta"`'):
        train(ODD, tmp_path / "run", device="meta")
    many = Experiment.from_json(ODD.to_json() | {"devices": 64})
    with pytest.raises(ValueError, match="not be more than there are"):
        launching.launch(print, "cuda", 64, unused=False)
    with pytest.raises(ValueError, match="equal parts"):
        Experiment.from_json(many.to_json() | {"batch_size": 32})
