"""AVE: its events, videos that are listed twice, ready spectrograms."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.clips import Spectrogram
from equivox.data.field import Damaged
from equivox.data.sets.ave import CLASSES, QUICK, read

pytest.importorskip("PIL", reason="frames need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("ave", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: object) -> MultimodalData:
    return data.load("ave", root=root, **(QUICK | options))


def test_splits_and_classes(root: Path) -> None:
    loaded = _load(root)
    assert len(loaded.classes) == 28
    assert list(CLASSES) == sorted(CLASSES)
    assert [len(getattr(loaded, split)) for split in SPLITS] == [6, 3, 3]
    assert loaded.train.target.tolist() == [3, 8, 26] * 2


def test_a_video_that_is_listed_twice_has_the_first_or_the_last_event(root: Path) -> None:
    rule = "another event of a video that is listed already"
    first, last = read(root), read(root, repeated="last")
    assert first.left_out[rule] == ["train/train_0/Acoustic guitar"]
    assert last.left_out[rule] == ["train/train_0/Banjo"]
    assert {e.target for e in last.entries["train"] if e.id == "train_0"} == {1}
    assert len(last.entries["train"]) == 6


@pytest.mark.parametrize("repeated", ["first", "last"])
def test_no_video_is_in_two_splits_and_the_test_split_is_whole(root: Path, repeated: str) -> None:
    with (root / "trainSet.txt").open("a", encoding="utf-8") as file:
        file.write("Bark&test_0&good&0&5\nBark&val_0&good&0&5\n")
    with (root / "valSet.txt").open("a", encoding="utf-8") as file:
        file.write("Bark&test_1&good&0&5\n")
    found = read(root, repeated=repeated)
    assert [len(found.entries[split]) for split in SPLITS] == [6, 3, 3]
    assert sum(map(len, found.left_out.values())) == 4


def test_a_header_is_no_event(root: Path) -> None:
    text = (root / "valSet.txt").read_text(encoding="utf-8")
    header = "Category&VideoID&Quality&StartTime&EndTime\n"
    (root / "valSet.txt").write_text("\ufeff" + header + text, encoding="utf-8")
    assert len(_load(root).validation) == 3


def test_an_unknown_event_is_named(root: Path) -> None:
    (root / "valSet.txt").write_text("Church bells&x&good&0&10\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"`Church bells` in `valSet.txt`.*`Church bell`"):
        _load(root)


def test_spectrograms_are_brought_to_one_length(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    decoder = Spectrogram(bins=3, frames=4)
    for length in (2, 6):
        x = torch.arange(3.0 * length).view(3, length)
        path.write_bytes(pickle.dumps(x.numpy()))
        found = decoder.load(path)
        assert found.shape == (1, 3, 4)
        assert torch.equal(found[0, :, : min(length, 4)], x[:, :4])
        assert bool((found[0, :, length:] == decoder.silence).all())
    path.write_bytes(pickle.dumps(torch.zeros(4, 3).numpy()))
    with pytest.raises(Damaged, match="3 frequencies"):
        decoder.load(path)
