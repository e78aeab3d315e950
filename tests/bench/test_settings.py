"""Schedules, early stopping, precision, micro-batches, compiling: what they do, and resumed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox.balancer import Balancer
from equivox.bench import checkpoint, training
from equivox.bench.experiment import Experiment
from equivox.bench.training import Result, Terminated, Training, protocol, train

PLAIN = Experiment("latent2", "ogm_ge", seed=1, epochs=4, lr=0.08, data_options={"samples": 600})


def weights(result: Result) -> dict[str, torch.Tensor]:
    assert result.balancer is not None
    return {n: x for n, x in result.balancer.state_dict().items() if n != "_extra_state"}


def assert_close(one: Result, other: Result, rtol: float) -> None:
    mine, theirs = weights(one), weights(other)
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=rtol, atol=rtol * 1e-2)


# ── learning rates ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "factors"),
    [
        ({}, [1, 1, 1, 1]),
        ({"schedule": "step", "schedule_options": {"step_size": 2}}, [1, 1, 0.1, 0.1]),
        (
            {"schedule": "multistep", "schedule_options": {"milestones": [1, 3], "gamma": 0.5}},
            [1, 0.5, 0.5, 0.25],
        ),
        ({"schedule": "exponential", "schedule_options": {"gamma": 0.5}}, [1, 0.5, 0.25, 0.125]),
        ({"schedule": "cosine"}, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        ({"warmup": 3}, [0.25, 0.5, 0.75, 1]),
        (
            {"warmup": 1, "schedule": "step", "schedule_options": {"step_size": 2}},
            [0.5, 1, 1, 0.1],
        ),
    ],
)
def test_rates_over_the_epochs(fields: dict[str, Any], factors: list[float]) -> None:
    seen: list[Any] = []
    result = train(replace(PLAIN, **fields), watch=seen.append)
    assert [record["lr"] for record in seen] == pytest.approx([0.08 * f for f in factors])
    assert all(("lr" in record) == bool(fields) for record in result.history)


def test_a_schedule_acts_on_the_method_s_own_parameters_too() -> None:
    rates = {"schedule": "exponential", "schedule_options": {"gamma": 0.5}}
    experiment = replace(PLAIN, method="umt", epochs=1, **rates)
    data = experiment.load()
    made = Training(experiment.resolved(data), data)
    before = [group["lr"] for group in made.optimizer.param_groups]
    made.epoch(lambda: False, None, None)
    assert [group["lr"] for group in made.optimizer.param_groups] == [lr / 2 for lr in before]


# ── early stopping ──────────────────────────────────────────────────────────────────────────────


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Make these the validation accuracies of the epochs."""
    evaluate = Training.evaluate

    def found(self: Training, split: str) -> Any:
        metrics, rows = evaluate(self, split)
        return metrics | {"accuracy": values[len(self.records)]}, rows

    monkeypatch.setattr(Training, "evaluate", found)


@pytest.mark.parametrize(
    ("values", "patience", "made"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 6),
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.7], 2, 5),
        ([0.5, 0.5, 0.5, 0.9, 0.9, 0.9], 2, 3),  # equal is not better
        ([0.5, float("nan"), 0.4, 0.9, 0.9, 0.9], 3, 6),
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], None, 6),
    ],
)
def test_patience(
    values: list[float], patience: int | None, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [*values, 0.0])
    assert train(replace(PLAIN, epochs=6, patience=patience)).epochs == made


def test_a_run_that_was_stopped_early_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5, 0.4, 0.3, 0.9])
    early = replace(PLAIN, patience=2)
    result = train(early, tmp_path / "run")
    assert (result.epochs, result.best["epoch"]) == (3, 0)
    assert train(early, tmp_path / "run", resume=True) == result


# ── micro-batches, precision, compiling ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["joint", "ogm_ge", "mmpareto", "reconboost", "mla"])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_change_nothing_but_rounding(method: str, accumulate: int) -> None:
    """Five batches an epoch, all of them whole."""
    fields = {"method": method, "epochs": 2, "data_options": {"samples": 640}}
    whole = train(replace(PLAIN, **fields))
    parts = train(replace(PLAIN, **fields, accumulate=accumulate))
    assert_close(parts, whole, 1e-3)
    losses = [[record["loss"] for record in run.history] for run in (parts, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_micro_batches_are_those_of_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 samples the last 44 of an epoch's order, which are no whole batch, are left out."""
    seen: list[list[int]] = []
    update = Training._update

    def noting(self: Training, batch: Any) -> None:
        seen.append(batch.index.tolist())
        update(self, batch)

    monkeypatch.setattr(Training, "_update", noting)
    train(replace(PLAIN, epochs=1))
    whole = [index for batch in seen for index in batch]
    seen.clear()
    train(replace(PLAIN, epochs=1, accumulate=4))
    assert [len(batch) for batch in seen] == [16] * 16
    assert [index for batch in seen for index in batch] == whole[:256]


def test_bf16_is_near_full_precision_and_keeps_the_weights_in_it() -> None:
    half, full = train(replace(PLAIN, precision="bf16")), train(PLAIN)
    assert all(x.dtype == torch.float32 for x in weights(half).values() if x.is_floating_point())
    assert half.history != full.history
    losses = [[record["loss"] for record in run.history] for run in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.fixture
def fp16_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor has it too, slowly: what is refused to users serves these tests."""
    monkeypatch.setattr(training, "_check", lambda *_: None)


@pytest.mark.usefixtures("fp16_anywhere")
@pytest.mark.parametrize("method", ["joint", "mmpareto"])
def test_fp16_is_near_full_precision(method: str) -> None:
    plain = replace(PLAIN, method=method, accumulate=2, data_options={"samples": 640})
    half, full = train(replace(plain, precision="16")), train(plain)
    assert half.balancer is not None
    assert half.balancer.scaler is not None
    assert all(x.isfinite().all() for x in weights(half).values())
    losses = [[record["loss"] for record in run.history] for run in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert half.history != full.history


@pytest.mark.usefixtures("fp16_anywhere")
def test_updates_that_the_scaler_skips_are_resumed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that is far too large: the first updates are skipped, and halve it."""
    large = partial(torch.amp.GradScaler, init_scale=2.0**40)
    monkeypatch.setattr(torch.amp, "GradScaler", large)
    half = replace(PLAIN, precision="16")
    result = train(half, tmp_path / "whole")
    assert result.balancer is not None
    assert result.balancer.progress.updates < 4 * 5
    assert result.balancer.scaler.get_scale() < 2.0**40
    with monkeypatch.context() as patch:
        end_after(7, patch, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            train(half, tmp_path / "run", every=1e-9)
    train(half, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")
    states = [checkpoint.load(tmp_path / f / "checkpoints" / "last") for f in ("run", "whole")]
    assert states[0]["scaler"] == states[1]["scaler"]


def test_compiling_is_asked_for_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Balancer, "compile", partialmethod(Balancer.compile, backend="eager"))
    plain = replace(PLAIN, epochs=1)
    compiled = train(replace(plain, compile=True))
    assert_close(compiled, train(plain), 1e-5)
    assert compiled.balancer is not None
    fusion = compiled.balancer.model.fusion
    assert fusion._compiled_call_impl is not None


# ── resuming ────────────────────────────────────────────────────────────────────────────────────

ALL = replace(
    PLAIN,
    schedule="multistep",
    schedule_options={"milestones": [1], "gamma": 0.5},
    warmup=1,
    patience=3,
    precision="bf16",
    accumulate=2,
)


def assert_same(folder: Path, other: Path) -> None:
    for name in (
        "metrics.jsonl",
        "predictions.safetensors",
        "checkpoints/last/tensors.safetensors",
    ):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(ALL, folder)
    return folder


def end_after(number: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    step, made = Training._step, []

    def counting(self: Training) -> None:
        step(self)
        made.append(0)
        if len(made) == number:
            raise error

    monkeypatch.setattr(Training, "_step", counting)


@pytest.mark.parametrize("number", [3, 8, 14])
def test_everything_resumes_bit_for_bit_after_sigterm(
    number: int, tmp_path: Path, whole: Path
) -> None:
    data, looks = ALL.load(), []
    asked = lambda: looks.append(0) or len(looks) == number  # noqa: E731
    options = {"watch": None, "measure": None, "device": "cpu", "every": None}
    folder = training.Folder(tmp_path / "run", ALL)
    with pytest.raises(Terminated):
        training._trained(ALL, data, folder, asked, **options)
    train(ALL, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_in_the_middle_of_an_epoch_loses_little(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third of four updates of the second epoch, saved after each."""
    load = Experiment.load
    monkeypatch.setattr(Experiment, "load", lambda self: replace(load(self), workers=workers))
    train(ALL, tmp_path / "whole", every=1e-9)
    with monkeypatch.context() as patch:
        end_after(7, patch, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            train(ALL, tmp_path / "run", every=1e-9)
    kept = checkpoint.load(tmp_path / "run" / "checkpoints" / "last")
    assert (len(kept["records"]), kept["rows"]) == (1, 2 * 64)
    made = []
    update = Training._update
    monkeypatch.setattr(Training, "_update", lambda *a: made.append(0) or update(*a))
    train(ALL, tmp_path / "run", resume=True)
    assert len(made) < 3 * 8
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_checkpoints_by_time_do_not_change_the_result(tmp_path: Path, whole: Path) -> None:
    train(ALL, tmp_path / "run", every=0.01)
    assert_same(tmp_path / "run", whole)


def test_a_time_that_has_not_come_writes_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    save = Training.save
    monkeypatch.setattr(Training, "save", lambda self: saved.append(time.monotonic()) or save(self))
    train(PLAIN, tmp_path / "run", every=1e6)
    assert len(saved) == 4


def test_a_folder_of_an_older_version_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    """Its configuration and its checkpoint know nothing of the later settings."""
    train(PLAIN, tmp_path / "whole")
    with monkeypatch.context() as patch:
        end_after(8, patch, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            train(PLAIN, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    later = ("schedule", "schedule_options", "warmup", "patience", "precision", "accumulate")
    for name in (*later, "compile", "devices", "strategy"):
        del config["experiment"][name]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    last = tmp_path / "run" / "checkpoints" / "last"
    state = checkpoint.load(last)
    for name in ("scheduler", "scaler", "other_ranks"):
        del state[name]
    checkpoint.save(last, state)
    train(PLAIN, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")


# ── protocol ────────────────────────────────────────────────────────────────────────────────────


def test_later_settings_are_in_the_protocol_where_they_are_set() -> None:
    data = PLAIN.load()
    usual = protocol(PLAIN.resolved(data), data)
    assert not {"schedule", "precision", "devices", "patience"} & set(usual)
    changed = protocol(replace(PLAIN, precision="bf16", warmup=2).resolved(data), data)
    assert (changed["precision"], changed["warmup"]) == ("bf16", 2)
    assert changed["fingerprint"] != usual["fingerprint"]


# ── what cannot be ──────────────────────────────────────────────────────────────────────────────


def test_what_the_machine_or_the_data_cannot_do_leaves_no_folder(tmp_path: Path) -> None:
    for wrong, hint in (
        ({"precision": "16"}, "needs a GPU"),
        ({"accumulate": 2, "batch_size": 1000}, "larger than an epoch"),
        ({"accumulate": 3}, "equal parts"),
    ):
        with pytest.raises(ValueError, match=hint):
            train(replace(PLAIN, **wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("step", {"step_size": 1, "last_epoch": 3}, "Found `last_epoch`"),
        ("exponential", {"gamma": -1.0}, "the rate becomes -1"),
        ("exponential", {"gamma": float("nan")}, "the rate becomes nan"),
    ],
)
def test_rates_that_cannot_be(name: str, options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Experiment("latent2", schedule=name, schedule_options=options)
