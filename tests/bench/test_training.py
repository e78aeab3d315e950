"""A run: its numbers, its folder, and that a cut leaves no trace."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from equivox import data as datasets
from equivox.bench import checkpoint, training
from equivox.bench.experiment import Experiment
from equivox.bench.training import Result, Terminated, train
from equivox.run import Fork

SMALL = Experiment("latent2", "ogm_ge", seed=1, epochs=3, data_options={"samples": 600})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A run without a cut."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(SMALL, folder), folder


def weights(result: Result) -> dict[str, torch.Tensor]:
    assert result.balancer is not None
    return {n: x for n, x in result.balancer.state_dict().items() if n != "_extra_state"}


def assert_same(result: Result, folder: Path, expected: tuple[Result, Path]) -> None:
    mine, theirs = weights(result), weights(expected[0])
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name in ("metrics.jsonl", "predictions.safetensors"):
        assert (folder / name).read_bytes() == (expected[1] / name).read_bytes()
    assert (result.last, result.best) == (expected[0].last, expected[0].best)


def test_the_folder_tells_all(whole: tuple[Result, Path]) -> None:
    result, folder = whole
    config = json.loads((folder / "config.json").read_text())
    assert Experiment.from_json(config["experiment"]) == SMALL
    assert config["versions"].keys() >= {"python", "torch", "numpy", "equivox"}
    assert config.keys() >= {"commit", "platform", "command"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert tuple(lines) == result.history
    assert Result.read(folder) == result
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_the_numbers_are_those_of_the_balancer(whole: tuple[Result, Path]) -> None:
    result, _ = whole
    data = SMALL.load()
    assert result.balancer is not None
    logits = result.balancer.predict(data.test.inputs)
    right = (logits.argmax(-1) == data.test.target).float().mean().item()
    assert result.last["test"]["accuracy"] == pytest.approx(right)
    assert torch.equal(result.predictions["last"], logits)
    shares = result.balancer.model(data.test.inputs).split
    right = (shares["hard"].argmax(-1) == data.test.target).float().mean().item()
    assert result.last["branches"]["hard"] == pytest.approx(right)
    assert result.parameters["model"] == sum(p.numel() for p in result.balancer.model.parameters())
    assert result.parameters["method"] == 0


def test_memory_and_folder_agree(whole: tuple[Result, Path]) -> None:
    result = train(SMALL)
    assert (result.last, result.best, result.history) == (
        whole[0].last,
        whole[0].best,
        whole[0].history,
    )


def test_selection_is_on_validation_and_the_test_split_is_read_at_the_end_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = iter([0.5, 0.9, 0.4, 0.9, 0.2])
    splits = []
    evaluate = training.Training.evaluate

    def scripted(self: training.Training, split: str) -> Any:
        splits.append(split)
        metrics, rows = evaluate(self, split)
        return (metrics | {"accuracy": next(values)} if split == "validation" else metrics), rows

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "evaluate", scripted)
        result = train(Experiment("latent2", epochs=5, data_options={"samples": 600}))
    assert splits == ["validation"] * 5 + ["test"] * 2
    assert (result.last["epoch"], result.best["epoch"]) == (4, 3)
    four = train(Experiment("latent2", epochs=4, data_options={"samples": 600}))
    assert result.best["test"] == four.last["test"]
    assert result.best["test"] != result.last["test"]


def test_the_order_of_batches_is_that_of_the_seed_for_every_method(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[int]] = []
    update = training.Training._update

    def noting(self: training.Training, batch: Any) -> None:
        seen.append(batch.index.tolist())
        update(self, batch)

    monkeypatch.setattr(training.Training, "_update", noting)
    orders = []
    for method, seed in (("joint", 0), ("ogm_ge", 0), ("joint", 1)):
        seen.clear()
        train(Experiment("latent2", method, seed=seed, epochs=1, data_options={"samples": 600}))
        orders.append(list(seen))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_the_random_state_outside_is_untouched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(Experiment("latent2", epochs=1, data_options={"samples": 600}))
    assert torch.equal(torch.get_rng_state(), before)


def test_further_measures_join_the_record_and_change_nothing(whole: tuple[Result, Path]) -> None:
    seen: list[Any] = []
    result = train(SMALL, measure=lambda *_: {"drawn": torch.rand(()).item()}, watch=seen.append)
    assert result.last["test"] == whole[0].last["test"]
    told = {"seconds", "lr", "drawn", "epoch", "loss", "validation"}
    assert [set(record) for record in seen] == [told] * 3
    assert all("drawn" in record for record in result.history)


def test_regression_is_selected_by_its_own_metric() -> None:
    result = train(Experiment("latent_regression", epochs=1, data_options={"samples": 600}))
    assert set(result.last["test"]) == {"loss", "r2", "mae"}


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Send SIGTERM, or raise, after so many updates of this process."""
    update = training.Training._update

    def arrange(number: int, error: type[BaseException] | None = None) -> None:
        made = []

        def counting(self: training.Training, batch: Any) -> None:
            update(self, batch)
            made.append(0)
            if len(made) == number:
                if error is not None:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(training.Training, "_update", counting)

    yield arrange


@pytest.mark.parametrize("number", [1, 3, 5, 8, 14])
def test_a_run_ended_at_any_update_resumes_bit_for_bit(
    number: int, kill_after: Any, tmp_path: Path, whole: tuple[Result, Path]
) -> None:
    """Five updates an epoch: in the first, before its measuring, in the second, in the last."""
    handler = signal.getsignal(signal.SIGTERM)
    kill_after(number)
    with pytest.raises(Terminated, match="--resume"):
        train(SMALL, tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not (tmp_path / "run" / "result.json").exists()
    kill_after(0)
    result = train(SMALL, tmp_path / "run", resume=True)
    assert_same(result, tmp_path / "run", whole)


@pytest.mark.parametrize("number", [2, 7, 15])
def test_an_interrupted_run_resumes_from_its_last_epoch(
    number: int, kill_after: Any, tmp_path: Path, whole: tuple[Result, Path]
) -> None:
    kill_after(number, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99, "half a li')
    kill_after(0)
    assert_same(train(SMALL, tmp_path / "run", resume=True), tmp_path / "run", whole)


def test_a_cut_between_the_two_checkpoints(
    tmp_path: Path, whole: tuple[Result, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []

    def cut(folder: Path, *rest: Any) -> None:
        if len(saved) == 3 and folder.name == "best":  # last and best, last of the second epoch
            raise KeyboardInterrupt
        saved.append(folder.name)
        checkpoint_save(folder, *rest)

    checkpoint_save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, tmp_path / "run")
    assert saved == ["last", "best", "last"]
    assert_same(train(SMALL, tmp_path / "run", resume=True), tmp_path / "run", whole)


def test_a_finished_run_resumes_to_the_same_result(tmp_path: Path) -> None:
    one = Experiment("latent2", epochs=1, data_options={"samples": 600})
    first = train(one, tmp_path / "run")
    again = train(one, tmp_path / "run", resume=True)
    assert again == first


def test_a_folder_is_used_once(tmp_path: Path, whole: tuple[Result, Path]) -> None:
    before = {path: path.read_bytes() for path in whole[1].rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="another run"):
        train(SMALL, whole[1])
    with pytest.raises(ValueError, match=r"Found `seed = 1` in .* and `seed = 2` here"):
        train(Experiment.from_json(SMALL.to_json() | {"seed": 2}), whole[1], resume=True)
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(FileExistsError, match="other files"):
        train(SMALL, tmp_path)


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        train(SMALL, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="out = None"):
        train(SMALL, resume=True)
    with pytest.raises(FileNotFoundError, match=r"result\.json"):
        Result.read(tmp_path)


def test_the_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    one = Experiment("latent2", epochs=1, data_options={"samples": 600})
    train(one, tmp_path / "run")
    other = json.loads((tmp_path / "run" / "config.json").read_text())
    other["experiment"]["method"] = "ogm_ge"
    (tmp_path / "run" / "config.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="`method = 'joint'`, and `method = 'ogm_ge'` is asked"):
        train(Experiment.from_json(other["experiment"]), tmp_path / "run", resume=True)


def test_a_truncated_checkpoint_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    one = Experiment("latent2", epochs=1, data_options={"samples": 600})
    train(one, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "last" / checkpoint.TENSORS
    file.write_bytes(file.read_bytes()[:-100])
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="bytes in"):
        train(one, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_a_diverging_run_keeps_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = training.Training._update
    made = []

    def poisoned(self: training.Training, batch: Any) -> None:
        update(self, batch)
        made.append(0)
        if len(made) == 10:  # the last update of the second epoch: no further loss tells of it
            next(self.balancer.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(training.Training, "_update", poisoned)
    with pytest.raises(FloatingPointError, match="finite"):
        train(SMALL, tmp_path / "run")
    kept = checkpoint.load(tmp_path / "run" / "checkpoints" / "last")
    assert len(kept["records"]) == 1
    tensors = [x for x in kept["balancer"].values() if x.is_floating_point()]
    assert all(x.isfinite().all() for x in tensors)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="can be written"):
        train(SMALL, tmp_path / "file" / "run")


def test_an_unusable_device_is_refused() -> None:
    with pytest.raises(ValueError, match="`device` should be one"):
        train(SMALL, device="abacus")


def test_the_protocol_does_not_depend_on_method_and_seed(whole: tuple[Result, Path]) -> None:
    facts = whole[0].protocol
    data = datasets.load("latent2", samples=600)
    other = Experiment("latent2", "joint", seed=7, epochs=3, data_options={"samples": 600})
    assert training.protocol(other.resolved(data), data) == facts
    longer = Experiment("latent2", epochs=4, data_options={"samples": 600}).resolved(data)
    assert training.protocol(longer, data)["fingerprint"] != facts["fingerprint"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    experiment = Experiment("latent2", epochs=1, data_options={"samples": 600})
    with FileLock(training.lock_of(tmp_path / "run")):
        with pytest.raises(BlockingIOError, match="one process at a time"):
            train(experiment, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        train(experiment, tmp_path / "run", locked=True)


def test_sigterm_while_teachers_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment("latent2", "umt", epochs=1, data_options={"samples": 600})
    teach, epochs = Fork._train, []

    def asked(self: Fork, *given: Any) -> None:
        epochs.append(0)
        os.kill(os.getpid(), signal.SIGTERM)
        teach(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Fork, "_train", asked)
        with pytest.raises(Terminated, match="--resume"):
            train(experiment, tmp_path / "run")
    assert len(epochs) == 1
    resumed, whole = train(experiment, tmp_path / "run", resume=True), train(experiment)
    assert resumed.last == whole.last
