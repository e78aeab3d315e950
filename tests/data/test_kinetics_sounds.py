"""Kinetics-Sounds: lists, short clips, filter banks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.field import Decoded
from equivox.data.sets.kinetics_sounds import CLASSES, MEAN, QUICK, STD, read

pytest.importorskip("PIL", reason="frames need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("kinetics_sounds", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: object) -> MultimodalData:
    return data.load("kinetics_sounds", root=root, **(QUICK | options))


def _ids(loaded: MultimodalData, split: str) -> set[str]:
    samples = getattr(loaded, split)
    assert isinstance(samples, Decoded)
    return {entry.id for entry in samples.entries}


def test_classes_are_31_in_order_of_names() -> None:
    assert len(CLASSES) == 31
    assert list(CLASSES) == sorted(CLASSES)


def test_validation_is_held_out_of_training_and_short_clips_of_both(root: Path) -> None:
    loaded = _load(root)
    parts = [_ids(loaded, split) for split in SPLITS]
    assert [len(part) for part in parts] == [8, 3, 6]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert loaded.facts["left_out"]["fewer than 4 frames"] == ["bowltrain-3_000010_000020"]
    assert len(_load(root, least=3).train) == 9


def test_which_clips_validate_does_not_depend_on_their_frames(root: Path) -> None:
    """The first clip of a class is held out though it is too short, and no other in its place."""
    before = _ids(_load(root), "validation")
    for frame in (4, 5):
        (root / "visual_train/bowltrain-0_000010_000020" / f"frame_{frame:05d}.jpg").unlink()
    assert _ids(_load(root), "validation") == before - {"bowltrain-0_000010_000020"}


def test_a_clip_without_frames_is_missing_and_not_short(root: Path) -> None:
    for frame in (root / "visual_train/bowltrain-1_000010_000020").iterdir():
        frame.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 8 samples of train.*bowltrain-1"):
        _load(root)


@pytest.mark.parametrize("line", ["{clip},10,{name}", "{clip} {name}", "{clip},10,{number}"])
def test_forms_of_the_lists(root: Path, line: str) -> None:
    clips = [p.name for p in sorted((root / "visual_train").iterdir())]
    text = "\n".join(line.format(clip=c, name=CLASSES[2], number=2) for c in clips)
    (root / "my_train.txt").write_text("\ufeff" + text, encoding="utf-8")
    assert {entry.target for entry in read(root).entries["train"]} == {2}


def test_the_json_list_has_a_validation_split(root: Path) -> None:
    train, test = (
        [p.name for p in sorted((root / f"visual_{part}").iterdir())] for part in ("train", "test")
    )
    subsets = {"training": train[:6], "validation": train[6:8], "testing": test}
    database = {
        clip: {"subset": subset, "label": "bowling"} for subset, c in subsets.items() for clip in c
    }
    path = root / "KS_train_val.json"
    path.write_text(json.dumps({"labels": ["bowling"], "database": database}), encoding="utf-8")
    found = read(root, lists="json", least=1)
    assert [len(found.entries[split]) for split in SPLITS] == [6, 2, 6]
    assert "visual_validation" in str(found.entries["validation"][0].sources["visual"])
    database[test[0]]["subset"] = "tests"
    path.write_text(json.dumps({"database": database}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"Found .*tests"):
        read(root, lists="json")


def test_one_folder_for_all_clips(root: Path) -> None:
    for kind in ("visual", "audio"):
        (root / kind).mkdir()
        for path in sorted(root.glob(f"{kind}_*/*")):
            path.rename(root / kind / path.name)
    assert len(_load(root).test) == 6


def test_filter_banks_are_normalised_where_they_are_not_yet(root: Path) -> None:
    ready, raw = (_load(root, audio=kind).test[0][0]["audio"] for kind in ("npy", "npy_raw"))
    assert ready.shape == (1, 1024, 128)
    assert torch.allclose(raw, (ready - MEAN) / (2 * STD))


@pytest.mark.parametrize(
    ("line", "message"),
    [("clip,10,bowlin", "Did you mean `bowling`"), ("clip", "Lines of"), ("clip,10,31", "`31`")],
)
def test_bad_lines_are_named(root: Path, line: str, message: str) -> None:
    (root / "my_test.txt").write_text(line, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        _load(root)
