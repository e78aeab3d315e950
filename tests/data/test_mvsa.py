"""MVSA: three layouts, and how the labels of two sides are merged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from equivox import data
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.sets.mvsa import CLASSES, merged

pytest.importorskip("PIL", reason="images need Pillow")

QUICK = {"size": 16, "encoder": "small"}
POSITIVE, NEUTRAL, NEGATIVE = range(3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("mvsa", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("mvsa", root=root, **(QUICK | options))


def _ids(made: MultimodalData, split: str) -> list[str]:
    return [entry.id for entry in getattr(made, split).entries]


@pytest.mark.parametrize(
    ("pairs", "label"),
    [
        ([(POSITIVE, POSITIVE)], POSITIVE),
        ([(NEUTRAL, NEGATIVE)], NEGATIVE),
        ([(POSITIVE, NEUTRAL)], POSITIVE),
        ([(POSITIVE, NEGATIVE)], "text and image contradict each other"),
        ([(POSITIVE, NEUTRAL), (POSITIVE, NEGATIVE), (NEGATIVE, NEUTRAL)], POSITIVE),
        ([(0, 0), (1, 0), (2, 0)], "the annotators have no majority"),
    ],
)
def test_labels_are_merged(pairs: list[tuple[int, int]], label: int | str) -> None:
    assert merged(pairs) == label


def test_equal_labels_alone_where_wanted() -> None:
    assert merged([(NEUTRAL, NEUTRAL)], "equal") == NEUTRAL
    assert merged([(NEUTRAL, NEGATIVE)], "equal") == "labels of text and image differ"


def test_the_raw_form_is_divided_by_class(root: Path) -> None:
    made = _load(root)
    assert made.facts["left_out"]["text and image contradict each other"] == ["62", "63"]
    ids = [i for split in SPLITS for i in _ids(made, split)]
    assert len(ids) == len(set(ids)) == 61
    for split, count in (("train", 15), ("validation", 2), ("test", 2)):
        numbers = Counter(getattr(made, split).target.tolist())
        assert set(numbers) == {0, 1, 2} and min(numbers.values()) >= count


def test_the_order_of_the_list_changes_no_split(root: Path) -> None:
    before = {split: set(_ids(_load(root), split)) for split in SPLITS}
    path = root / "labelResultAll.txt"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(rows)]))
    assert {split: set(_ids(_load(root), split)) for split in SPLITS} == before


def test_lists_of_mla_are_read(root: Path) -> None:
    for part, ids in (("train", range(1, 41)), ("test", range(41, 61))):
        rows = [f"{i}.jpg {CLASSES[i % 3]}" for i in ids]
        (root / f"my_{part}_mvsa.txt").write_text("\n".join(rows))
    made = _load(root)
    assert [len(made.train), len(made.validation), len(made.test)] == [34, 6, 20]
    assert made.test[0][1] == 41 % 3


def test_lines_of_json_are_read(root: Path) -> None:
    for place, name in enumerate(("train", "dev", "test")):
        rows = [
            {"id": i, "text": f"RT no. {i}", "img": f"data/{i}.jpg", "label": CLASSES[i % 3]}
            for i in range(1 + 10 * place, 11 + 10 * place)
        ]
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = _load(root)
    assert [len(made.train), len(made.validation), len(made.test)] == [10, 10, 10]
    assert made.train.entries[0].sources["text"] == "no. 1"  # type: ignore[attr-defined]
    (root / "test.jsonl").write_text('{"id": 1}')
    with pytest.raises(ValueError, match=r"line 1 of .*test\.jsonl` should hold"):
        _load(root)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("64\tpositive", "should be `<id>"),
        ("64", "should be `<id>"),
        ("64\tgood,bad", "Found `good` in line 65"),
        ("1\tpositive,positive", "listed once"),
    ],
)
def test_bad_rows_are_named(row: str, message: str, root: Path) -> None:
    with (root / "labelResultAll.txt").open("a") as file:
        file.write(row)
    with pytest.raises(ValueError, match=message):
        _load(root)


def test_missing_and_empty_texts_are_found(root: Path) -> None:
    (root / "data" / "5.txt").write_text("http://t.co/only\n")
    (root / "data" / "6.txt").unlink()
    report = data.check("mvsa", root, **QUICK)
    assert report.remarks == {str(root / "data" / "5.txt"): "no words"}
    assert [f for found in report.missing.values() for f in found] == [str(root / "data" / "6.txt")]
