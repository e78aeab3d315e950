"""IEMOCAP: four and six classes, and dialogues that are not divided."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox import data
from equivox.data import dialogues
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.pickles import read_pickle

TRAIN = [f"Ses0{i}F_impro0{j}" for i in range(1, 5) for j in range(5)]
TEST = ["Ses05F_impro01", "Ses05M_impro02"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dialogues.write_fake(tmp_path / "iemocap.pkl", TRAIN, TEST, 6, (6, 7, 8), 0)
    return tmp_path


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("iemocap", root=root, **options)


def _ids(made: MultimodalData, split: str) -> list[str]:
    return [entry.id for entry in getattr(made, split).entries]


def _changed(root: Path, change: Any) -> Path:
    whole = read_pickle(root / "iemocap.pkl")
    change(whole)
    (root / "iemocap.pkl").write_bytes(pickle.dumps(whole))
    return root


def test_four_classes_merge_one_and_leave_one_out(root: Path) -> None:
    made = _load(root)
    assert made.classes == ("neutral", "angry", "sad", "happy")
    raw = read_pickle(root / "iemocap.pkl")["label"]
    for entry in made.test.entries:  # type: ignore[attr-defined]
        name, _, place = entry.id.rpartition("/")
        assert entry.target == {0: 3, 1: 2, 2: 0, 3: 1, 4: 3}[raw[name][int(place)]]
    (left_out,) = (ids for rule, ids in made.facts["left_out"].items() if "frustrated" in rule)
    assert len(left_out) == len(TRAIN) + len(TEST)
    assert len(_ids(made, "test")) == 10


def test_six_classes_are_those_of_the_file(root: Path) -> None:
    made = _load(root, classes=6)
    assert made.classes == ("happy", "sad", "neutral", "angry", "excited", "frustrated")
    raw = read_pickle(root / "iemocap.pkl")["label"]
    assert made.test.target.tolist() == [label for each in TEST for label in raw[each]]


def test_names_serve_as_labels(root: Path) -> None:
    names = ("hap", "sad", "neu", "ang", "exc", "fru")

    def named(whole: dict[str, Any]) -> None:
        whole["label"] = {k: [names[i] for i in v] for k, v in whole["label"].items()}

    before = _load(root).train.target
    assert torch.equal(_load(_changed(root, named)).train.target, before)


def test_no_dialogue_is_divided(root: Path) -> None:
    made = _load(root)
    found = {split: {i.rpartition("/")[0] for i in _ids(made, split)} for split in SPLITS}
    assert found["validation"] == {TRAIN[0], TRAIN[10]}
    assert found["train"] == set(TRAIN) - found["validation"]
    assert found["test"] == set(TEST)


def test_a_session_is_held_out(root: Path) -> None:
    made = _load(root, hold_out="session")
    assert {i[:5] for i in _ids(made, "validation")} == {"Ses04"}
    assert {i[:5] for i in _ids(made, "train")} == {"Ses01", "Ses02", "Ses03"}


def test_a_validation_list_is_taken(root: Path) -> None:
    def listed(whole: dict[str, Any]) -> None:
        whole["valVid"] = {whole["trainVid"].pop()}

    made = _load(_changed(root, listed))
    assert {i.rpartition("/")[0] for i in _ids(made, "validation")} == {TRAIN[-1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole.pop("audio"), "dictionary of"),
        (lambda whole: whole["label"][TRAIN[3]].append(9), r"dialogue `Ses01F_impro03`"),
        (lambda whole: whole["label"].update({TRAIN[3]: [-1] * 6}), "Found `-1` for utterance 0"),
        (lambda whole: whole["text"].pop(TEST[0]), r"no `Ses05F_impro01` in \['text'\]"),
        (lambda whole: whole["text"].update({TEST[0]: [[1.0], [1.0, 2.0]] * 3}), "equally long"),
        (lambda whole: whole["text"].update({TEST[0]: np.zeros((6, 2))}), r"lengths \[2, 6\]"),
        (lambda whole: whole["testVid"].append(TRAIN[1]), "listed once"),
    ],
)
def test_bad_content_is_named(change: Any, message: str, root: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _load(_changed(root, change))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "iemocap.pkl").write_bytes(pickle.dumps({"trainVid": print}))
    with pytest.raises(ValueError, match=r"Found `builtins\.print`"):
        _load(tmp_path)
