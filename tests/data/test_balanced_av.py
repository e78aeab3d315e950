"""BalancedAV and MM-Debiased: their list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from equivox import data
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.sets.balanced_av import QUICK, read

pytest.importorskip("PIL", reason="frames need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("balanced_av", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: object) -> MultimodalData:
    return data.load("balanced_av", root=root, **(QUICK | options))


def _changed(root: Path, **content: Any) -> None:
    path = root / "balanced_av.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(old | content), encoding="utf-8")


def test_splits_and_sorted_classes(root: Path) -> None:
    loaded = _load(root)
    assert loaded.classes == ("bowling", "playing flute", "typing")
    assert [len(getattr(loaded, split)) for split in SPLITS] == [6, 3, 3]
    assert loaded.test.target.tolist() == [2, 0, 1]


def test_a_list_without_labels(root: Path) -> None:
    path = root / "balanced_av.json"
    flat = json.loads(path.read_text(encoding="utf-8"))["database"]
    path.write_text(json.dumps(flat), encoding="utf-8")
    assert _load(root).classes == ("bowling", "playing flute", "typing")


def test_a_class_that_the_labels_lack_is_named(root: Path) -> None:
    _changed(root, labels=["bowling", "typing"])
    with pytest.raises(ValueError, match=r"`playing flute` in `balanced_av.json`, clip `t"):
        _load(root)


@pytest.mark.parametrize(
    "database", [{"a": {"subset": "train", "label": "typing"}}, {"a": {"subset": "testing"}}, {}]
)
def test_bad_lists_are_named(root: Path, database: dict[str, Any]) -> None:
    _changed(root, database=database)
    with pytest.raises(ValueError, match=r"balanced_av.json` should"):
        _load(root)


def test_of_several_lists_one_is_chosen(root: Path) -> None:
    (root / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="should hold one list"):
        _load(root)
    assert len(_load(root, lists="balanced_av.json").test) == 3


@pytest.mark.parametrize("audio", ["npy", "wav"])
def test_other_sounds(root: Path, audio: str) -> None:
    found = read(root, audio=audio)
    assert found.entries["test"][0].sources["audio"].suffix == f".{audio}"
    assert found.decoders["audio"].shape == (1, 1024, 128)
