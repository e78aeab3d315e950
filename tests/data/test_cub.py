"""CUB with texts: lists, held-out images, descriptions that are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import data
from equivox.data.base import MultimodalData
from equivox.data.field import Draw

pytest.importorskip("PIL", reason="images need Pillow")

QUICK = {"size": 16, "encoder": "small"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("cub", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("cub", root=root, **(QUICK | options))


def test_splits_and_classes_are_those_of_the_lists(root: Path) -> None:
    made = _load(root)
    assert made.classes[0] == "001.Black_footed_Albatross"
    assert made.test.target.tolist() == [0, 0, 1, 1, 2, 2]
    held = [entry.id for entry in made.validation.entries]  # type: ignore[attr-defined]
    assert [i.rpartition("/")[2] for i in held] == ["Bird_0000", "Bird_0005", "Bird_0010"]
    assert len(made.train) == 6


def test_classes_follow_their_numbers_not_the_list(root: Path) -> None:
    path = root / "classes.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert _load(root).classes[0] == "001.Black_footed_Albatross"


def test_a_description_is_drawn_in_training_alone(root: Path) -> None:
    made = _load(root)
    drawn = {tuple(made.train[Draw(0, seed)][0]["text"].tolist()) for seed in range(20)}
    assert len(drawn) == 2
    assert len({tuple(made.test[0][0]["text"].tolist()) for _ in range(5)}) == 1


def test_lists_of_mla_are_taken_where_they_are_there(root: Path) -> None:
    rows = [line.split()[1].split("/") for line in (root / "images.txt").read_text().splitlines()]
    for part, chosen in (("train", rows[:12]), ("test", rows[12:])):
        text = "\n".join(f"{name} {folder}" for folder, name in chosen)
        (root / f"my_{part}_cub.txt").write_text(text)
    made = _load(root)
    assert [len(made.train), len(made.validation), len(made.test)] == [9, 3, 3]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("images", "1 a/b.jpg", "a number of their own"),
        ("images", "16 001.Black_footed_Albatross/b.jpg", "Found 1 numbers"),
        ("image_class_labels", "x 1", "Found `x 1`"),
        ("classes", "4", "should have 2 fields"),
    ],
)
def test_bad_lists_are_named(name: str, row: str, message: str, root: Path) -> None:
    with (root / f"{name}.txt").open("a") as file:
        file.write(row)
    with pytest.raises(ValueError, match=message):
        _load(root)


def test_an_unknown_class_or_part_is_named(root: Path) -> None:
    for name, old, new in (
        ("image_class_labels", "1 1", "1 9"),
        ("train_test_split", "1 1", "1 7"),
    ):
        path = root / f"{name}.txt"
        text = path.read_text()
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=f"`{new[2:]}`"):
            _load(root)
        path.write_text(text)


def test_an_empty_text_is_damaged(root: Path) -> None:
    path = root / "text_c10" / "003.Sooty_Albatross" / "Bird_0014.txt"
    path.write_text(" \n")
    report = data.check("cub", root, **QUICK)
    assert list(report.corrupt["test"]) == [str(path)]


def test_tokens_are_those_of_the_line(root: Path) -> None:
    from equivox.data.text import hashed_tokens

    wanted = hashed_tokens("This is bird 3, a Black footed Albatross.", 12, 20_000)
    assert torch.equal(_load(root, length=12).test[0][0]["text"], wanted)
