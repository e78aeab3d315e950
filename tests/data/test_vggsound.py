"""VGGSound: its list, its layouts, five seconds of sound."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.data import fakes
from equivox.data.audio import log_stft
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.field import Draw
from equivox.data.sets.vggsound import AUDIO, QUICK, read

pytest.importorskip("PIL", reason="frames need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("vggsound", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: object) -> MultimodalData:
    return data.load("vggsound", root=root, **(QUICK | options))


def test_splits_and_classes(root: Path) -> None:
    loaded = _load(root)
    assert loaded.classes == ("dog, howling", "people sneezing", "playing bassoon")
    assert [len(getattr(loaded, split)) for split in SPLITS] == [8, 3, 6]
    assert loaded.facts["left_out"]["fewer than 4 frames"] == ["-tr1_2_20"]
    assert loaded.shapes["audio"] == (1, 129, 626)


def test_clips_of_one_video_are_in_one_split(root: Path) -> None:
    rows = [f"{video},{start},a,train" for video in "xyz" for start in (0, 10)]
    (root / "vggsound.csv").write_text("\n".join([*rows, "v,0,a,test"]), encoding="utf-8")
    entries = read(root).entries
    assert [e.id for e in entries["validation"]] == ["x_0", "x_10"]
    assert [e.id for e in entries["train"]] == ["y_0", "y_10", "z_0", "z_10"]


def test_the_original_layout_and_filled_starts(root: Path) -> None:
    entry = read(root, layout="original", digits=6).entries["test"][1]
    assert entry.id == "-te0_1_000010"
    assert entry.sources["visual"] == root / "Image-01-FPS" / "-te0_1_000010.mp4"
    assert entry.sources["audio"] == root / "audio" / "-te0_1_000010.wav"


def test_training_hears_any_five_seconds_and_evaluation_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    fakes.write_tone(path, 400.0, seconds=10.0)
    decoder = AUDIO["wav"]
    middle = decoder.finish(path, None, decoder.load)
    sound = decoder.load(path)
    assert len(sound) == 160_000
    assert torch.equal(middle[0], log_stft(sound[40_000:120_000], 256, 128))
    drawn = [decoder.finish(path, Draw(place, 3), decoder.load) for place in (0, 1)]
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("row", ["id,3.5,a,train", "id,3,a,val", "id,3,,test"])
def test_bad_rows_are_named(root: Path, row: str) -> None:
    (root / "vggsound.csv").write_text(row, encoding="utf-8")
    with pytest.raises(ValueError, match="youtube_id,start,label,split"):
        _load(root)


def test_what_cannot_be_downloaded_any_more_is_counted(root: Path) -> None:
    (root / "audio_test" / "-te0_1_10.wav").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 6 samples of test"):
        _load(root)
    with pytest.warns(UserWarning, match="-te0_1_10.wav"):
        assert len(_load(root, tolerance=0.5).test) == 5
