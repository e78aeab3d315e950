"""ModelNet40: its views in both layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.data import fakes
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.field import Draw
from equivox.data.sets.modelnet40 import CLASSES, QUICK, AnyOf, read

pytest.importorskip("PIL", reason="images need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("modelnet40", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: object) -> MultimodalData:
    return data.load("modelnet40", root=root, **(QUICK | options))


def test_splits_and_classes(root: Path) -> None:
    assert len(CLASSES) == 40
    assert list(CLASSES) == sorted(CLASSES)
    loaded = _load(root)
    assert [len(getattr(loaded, split)) for split in SPLITS] == [6, 3, 3]
    assert loaded.test.target.tolist() == [0, 23, 39]


def test_views_lie_opposite_one_another(root: Path) -> None:
    entry = read(root).entries["test"][0]
    names = [path.name for path in entry.sources.values()]
    assert names == ["airplane_0004.obj.shaded_v001.png", "airplane_0004.obj.shaded_v007.png"]


def test_an_object_without_one_of_its_views_is_missing(root: Path) -> None:
    (root / "xbox/test/xbox_0004.obj.shaded_v007.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 samples of test.*_v007.png"):
        _load(root)


def test_an_unknown_class_is_named(root: Path) -> None:
    (root / "xbox").rename(root / "x-box")
    with pytest.raises(ValueError, match="`x-box`"):
        _load(root)


def _degrees(root: Path, train: int = 2) -> None:
    """Lists of the other layout, without its images."""
    (root / "pt").mkdir(parents=True)
    for part, count in (("train", train), ("test", 1)):
        names = [f"{kind}/{kind}_{i:04d}.ply" for kind in ("bed", "sofa") for i in range(count)]
        path = root / "pt" / f"ply_data_{part}_0_id2file.json"
        path.write_text(json.dumps(names), encoding="utf-8")


def test_degrees(tmp_path: Path) -> None:
    _degrees(tmp_path)
    found = read(tmp_path, layout="degrees")
    assert [len(found.entries[split]) for split in SPLITS] == [2, 2, 2]
    entry = found.entries["test"][0]
    folder = tmp_path / "image/bed/bed_0000"
    assert entry.target == CLASSES.index("bed")
    assert [len(paths) for paths in entry.sources.values()] == [90, 90]
    assert entry.sources["front"][-1] == folder / "bed_0000.89.png"
    assert entry.sources["rear"][0] == folder / "bed_0000.90.png"


def test_any_view_in_training_and_the_middle_one_elsewhere(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        fakes.write_picture(path, i, (8, 8), i)
    decoder = AnyOf(8, crop=False, flip=False)
    alone = [decoder.view(decoder.load(path), None) for path in paths]
    assert torch.equal(decoder.finish(paths, None, decoder.load), alone[2])
    seen = [decoder.finish(paths, Draw(i, 0), decoder.load) for i in range(40)]
    chosen = {k for x in seen for k in range(5) if torch.equal(x, alone[k])}
    assert chosen == {0, 1, 2, 3, 4}


def test_a_bad_list_is_named(tmp_path: Path) -> None:
    _degrees(tmp_path)
    (tmp_path / "pt/ply_data_test_0_id2file.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"list of `<class>/<object>\.ply`"):
        read(tmp_path, layout="degrees")
