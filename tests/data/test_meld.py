"""MELD: numbered dialogues, fixed classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from equivox import data
from equivox.data import dialogues
from equivox.data.base import SPLITS
from equivox.data.pickles import read_pickle


def test_dialogues_are_numbered_and_not_divided(tmp_path: Path) -> None:
    data.fake("meld", tmp_path)
    made = data.load("meld", root=tmp_path)
    found = {
        split: {int(entry.id.rpartition("/")[0]) for entry in getattr(made, split).entries}
        for split in SPLITS
    }
    assert found["test"] == {12, 13}
    assert found["validation"] == {0, 8}  # in order of names: 0 1 10 11 2 3 4 5 6 7 8 9
    assert found["train"] | found["validation"] == set(range(12))
    assert made.classes[0] == "neutral"
    assert made.shapes == {"text": (768,), "audio": (300,), "visual": (342,)}


def test_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    dialogues.write_fake(tmp_path / "meld.pkl", range(4), [7], 7, (7, 7, 7), 0)
    made = data.load("meld", root=tmp_path)
    assert made.test.target.tolist() == read_pickle(tmp_path / "meld.pkl")["label"][7]
    assert made.facts["left_out"] == {"excluded": []}


def test_a_missing_pickle_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.pkl").touch()
    with pytest.raises(FileNotFoundError, match=r"meld\.pkl` should be there. Found only `other"):
        data.load("meld", root=tmp_path)
