"""AV-MNIST from its parts: pairs of one digit, no recording in two splits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import data
from equivox.data.base import SPLITS, MultimodalData


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("avmnist") / "set"
    data.fake("avmnist_raw", root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "set"))


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("avmnist_raw", root=root, **options)


def _recordings(loaded: MultimodalData, split: str) -> list[Path]:
    return [entry.sources["audio"] for entry in getattr(loaded, split).entries]


def test_both_show_the_same_digit(made: Path) -> None:
    loaded = _load(made)
    for split in SPLITS:
        target = getattr(loaded, split).target.tolist()
        assert [int(path.name[0]) for path in _recordings(loaded, split)] == target


@pytest.mark.parametrize("speech", ["takes", "speakers"])
def test_no_recording_is_in_two_splits(speech: str, made: Path) -> None:
    loaded = _load(made, speech=speech)
    place = 2 if speech == "takes" else 1
    found = {s: {p.stem.split("_")[place] for p in _recordings(loaded, s)} for s in SPLITS}
    wanted = ("10", "5", "0") if speech == "takes" else ("cem", "ben", "ann")
    assert found == {s: {w} for s, w in zip(SPLITS, wanted, strict=True)}


def test_recordings_are_dealt_evenly_and_by_the_seed(made: Path) -> None:
    loaded = _load(made)
    used = _recordings(loaded, "train")
    counts = [used.count(path) for path in set(used)]
    assert max(counts) - min(counts) <= 1
    again, other = (data.load("avmnist_raw", seed, root=made) for seed in (0, 1))
    assert _recordings(again, "train") == used != _recordings(other, "train")


def test_the_filter_bank_has_its_shape(made: Path) -> None:
    inputs, _, _ = _load(made, audio="fbank").test[0]
    assert inputs["audio"].shape == (1, 96, 32)
    assert (inputs["audio"][0, 60:] == 0).all()  # half a second, filled up
    assert torch.isfinite(inputs["audio"]).all()


def test_bad_recordings_are_named(root: Path) -> None:
    (root / "recordings" / "ten_ann_0.wav").touch()
    with pytest.raises(ValueError, match=r"Found `ten_ann_0\.wav`"):
        _load(root)
    (root / "recordings" / "ten_ann_0.wav").unlink()
    for path in (root / "recordings").glob("7_*_5.wav"):
        path.unlink()
    images = _load(root, speech="speakers")  # the other division still has them
    assert len(images.test) == 10
    with pytest.raises(ValueError, match="Found none of `7` in validation"):
        _load(_without(root, "7"))


def _without(root: Path, digit: str) -> Path:
    """A root whose held-out images show the digit."""
    labels = root / "mnist" / "train-labels-idx1-ubyte"
    raw = bytearray(labels.read_bytes())
    raw[8] = int(digit)
    labels.write_bytes(raw)
    return root


def test_a_root_without_recordings_is_named(root: Path) -> None:
    shutil.rmtree(root / "recordings")
    with pytest.raises(FileNotFoundError, match="should hold recordings"):
        _load(root)


def test_a_damaged_recording_is_found(root: Path) -> None:
    path = next(path for path in _recordings(_load(root), "test") if path.name.startswith("3_"))
    path.write_bytes(path.read_bytes()[:20])
    assert list(data.check("avmnist_raw", root).corrupt["test"]) == [str(path)]
