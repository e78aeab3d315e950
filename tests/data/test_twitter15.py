"""Twitter-15: tables at tabs, targets in their tweets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import data
from equivox.data.base import MultimodalData
from equivox.data.sets import twitter15

pytest.importorskip("PIL", reason="images need Pillow")

QUICK = {"size": 16, "encoder": "small"}
HEADER = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("twitter15", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("twitter15", root=root, **(QUICK | options))


def _texts(root: Path, **options: Any) -> list[str]:
    return [e.sources["text"] for e in twitter15.read(root, **options).entries["train"]]


def test_labels_and_splits_are_those_of_the_lists(root: Path) -> None:
    made = _load(root)
    assert made.classes == ("negative", "neutral", "positive")
    assert [len(made.train), len(made.validation), len(made.test)] == [9, 6, 6]
    assert made.train.target.tolist() == [0, 1, 2] * 3


def test_the_target_tells_two_samples_of_a_tweet_apart(root: Path) -> None:
    first, second = _texts(root)[:2]
    assert (first, second) == ("Person 0 : Person 0 met", "Person 1 : Person 1 met")
    assert _texts(root, target="in place")[0] == "Person 0 met"
    assert _texts(root)[2] == 'Person 2 : @ a : " positive day for Person 2 2'
    made = _load(root)
    assert not torch.equal(made.test[0][0]["text"], made.test[1][0]["text"])
    assert torch.equal(made.test[0][0]["image"], made.test[1][0]["image"])


def test_single_quotation_marks_and_odd_line_ends_are_text(root: Path) -> None:
    rows = [HEADER, '1\t0\t0_1.jpg\t" $T$ said\tShe', "2\t1\t0_1.jpg\t$T$\x85there\tHe"]
    (root / "train.tsv").write_text("\n".join(rows), encoding="utf-8-sig")
    assert _texts(root, target="in place") == ['" She said', "He there"]


def test_a_table_without_targets_is_read(root: Path) -> None:
    rows = ["index\tLabel\tImageID\tString", "1\t2\t0_1.jpg\tFine"]
    (root / "train.tsv").write_text("\n".join(rows))
    assert _texts(root) == ["Fine"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should have the columns"),
        ("a,b\n1,2", "separated by tabs"),
        (f"{HEADER}\n1\t0\ta.jpg\tx", "Found 4 in line 2"),
        (f"{HEADER}\n1\t-1\ta.jpg\tx\ty", "Found `-1` in line 2"),
        (f"{HEADER}\n1\t0\t0_1.jpg\tx\ty\n1\t0\t0_1.jpg\tx\ty", "listed once"),
        (HEADER, "Found none in train"),
    ],
)
def test_bad_tables_are_named(text: str, message: str, root: Path) -> None:
    (root / "train.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        _load(root)


def test_missing_images_are_named(root: Path) -> None:
    (root / "twitter2015_images" / "1_1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 6 samples of validation: .*1_1\.jpg"):
        _load(root)


def test_where_the_target_stands_is_a_part_of_the_preprocessing(tmp_path: Path) -> None:
    data.fake("twitter15", tmp_path)
    first, in_place = (
        data.load("twitter15", root=tmp_path, target=target).facts["preprocessing"]
        for target in ("first", "in place")
    )
    assert first != in_place
