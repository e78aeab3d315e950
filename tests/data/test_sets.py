"""Every data set of the field, on its own fake: check, decode, train an epoch, resume."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import data
from equivox.bench.experiment import Experiment
from equivox.bench.training import Terminated, Training, train
from equivox.data import loading
from equivox.data.base import SPLITS, MultimodalData

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module", params=loading.names())
def faked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The name of a set and the root of its fake."""
    name: str = request.param
    root = tmp_path_factory.mktemp(name) / "set"
    try:
        data.fake(name, root)
        _quick(name, root)
    except ImportError as error:
        if "equivox[" not in str(error):
            raise
        pytest.skip(str(error))
    return name, root


def _quick(name: str, root: Path, **options: Any) -> MultimodalData:
    return data.load(name, root=root, **(loading.module(name).QUICK | options))


def test_a_fake_set_is_whole(faked: tuple[str, Path]) -> None:
    name, root = faked
    report = data.check(name, root)
    assert report.whole, report
    assert set(report.samples) == set(SPLITS)


def test_a_fake_set_is_the_same_every_time(faked: tuple[str, Path], tmp_path: Path) -> None:
    name, root = faked
    data.fake(name, tmp_path / "again")
    files = {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    again = tmp_path / "again"
    assert files == {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match="new or empty folder"):
        data.fake(name, again)


def test_a_sample_is_what_the_set_says(faked: tuple[str, Path]) -> None:
    name, root = faked
    made = _quick(name, root)
    for split in SPLITS:
        inputs, target, _ = next(iter(made.loader(split, batch_size=2)))
        for modality, encoder in made.encoders().items():
            assert tuple(inputs[modality].shape[1:]) == made.shapes[modality]
            features = encoder(inputs[modality])
            assert features.shape == (len(target), made.widths[modality])
        assert made.task.loss(torch.zeros(len(target), made.outputs), target).isfinite()


def test_loading_again_gives_the_same(faked: tuple[str, Path]) -> None:
    name, root = faked
    made = _quick(name, root)
    again = data.load(name, **made.options)
    for mine, other in zip(made.test, again.test, strict=True):
        for modality in made.modalities:
            assert torch.equal(mine[0][modality], other[0][modality])
    assert made.facts["preprocessing"] == made.options["preprocessing"]


def test_training_resumes_bit_for_bit(
    faked: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, root = faked
    options = loading.module(name).QUICK | {"root": str(root)}
    experiment = Experiment(name, epochs=2, batch_size=3, data_options=options)
    whole = train(experiment, tmp_path / "whole")
    batches = len(_quick(name, root).loader("train", batch_size=3))
    update, made = Training._update, []

    def ended(training: Training, batch: Any) -> None:
        update(training, batch)
        made.append(batch)
        if len(made) == batches + 1:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", ended)
        try:
            train(experiment, tmp_path / "cut")
        except Terminated:
            pass
        else:
            assert batches == 1, "a run of one batch an epoch ends with its last update"
    again = train(experiment, tmp_path / "cut", resume=True)
    for which, logits in whole.predictions.items():
        assert torch.equal(logits, again.predictions[which])


def test_a_missing_folder_is_named(faked: tuple[str, Path], tmp_path: Path) -> None:
    name, _ = faked
    with pytest.raises(FileNotFoundError, match="should be a folder"):
        data.load(name, root=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="Found"):
        data.load(name, root=tmp_path / "empty")


def test_a_set_says_what_it_is(faked: tuple[str, Path]) -> None:
    module = loading.module(faked[0])
    first, *rest = (module.__doc__ or "").splitlines()
    assert first.endswith(".") and rest, "a title in one line, then layout, licence and traps"
