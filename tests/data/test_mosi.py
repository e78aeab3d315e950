"""CMU-MOSI: the pickles' forms, labels, and what stands in bad files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import data
from equivox.data import sentiment, sentiment_files
from equivox.data.base import MultimodalData
from equivox.data.pickles import read_pickle

DIMS = {"text": 3, "audio": 4, "vision": 5}


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("mosi", root=root, **options)


def _written(root: Path, change: Any = None, name: str = "mosi_data.pkl") -> Path:
    """A small aligned pickle, after a change of its training part."""
    sentiment_files.write_fake(root / name, (3, 4, 5), (6, 6, 6), 0, mmsa=False)
    whole = read_pickle(root / name)
    if change is not None:
        change(whole["train"])
    (root / name).write_bytes(pickle.dumps(whole))
    return root


@pytest.mark.parametrize(
    ("rule", "scores", "numbers"),
    [
        ("acc2", (-3.0, -0.2, 0.0, 0.2), (0, 0, 1, 1)),
        ("acc2_nonzero", (-0.2, 0.0, 0.2), (0, None, 1)),
        ("three", (-0.6, -0.5, 0.0, 0.5, 0.6), (0, 1, 1, 1, 2)),
        ("acc7", (-3.0, -2.6, -1.4, -0.4, 0.5, 1.5, 2.6, 3.0), (0, 0, 2, 3, 3, 5, 6, 6)),
    ],
)
def test_labels_of_scores(rule: str, scores: tuple[float, ...], numbers: tuple[int, ...]) -> None:
    assert tuple(map(sentiment.RULES[rule].number, scores)) == numbers


def test_zeros_are_left_out_by_name(tmp_path: Path) -> None:
    made = _load(_written(tmp_path), target="acc2_nonzero")
    assert made.classes == ("negative", "positive")
    assert made.facts["left_out"]["a score of zero"] == [
        "train0_2.0_3.0",
        "train2_8.0_9.0",
        "valid0_2.0_3.0",
        "test0_2.0_3.0",
    ]
    assert [len(made.train), len(made.validation), len(made.test)] == [10, 5, 5]


def test_scores_are_kept_for_regression(tmp_path: Path) -> None:
    made = _load(_written(tmp_path))
    assert made.classes == () and made.outputs == 1
    assert made.test.target.flatten().tolist() == pytest.approx(sentiment_files.SCORES)


def test_infinite_numbers_become_zero_and_are_counted(tmp_path: Path) -> None:
    made = _load(_written(tmp_path), standardise=False)
    assert made.train[0][0]["audio"][0, 0] == 0
    assert "replaced=3" in made.facts["decoders"]["audio"]
    assert "replaced=0" in made.facts["decoders"]["text"]


def test_standardised_by_training_steps_that_are_no_padding(tmp_path: Path) -> None:
    made = _load(_written(tmp_path))
    x = torch.stack([inputs["text"] for inputs, _, _ in made.train])  # type: ignore[attr-defined]
    assert (x[:, 4:] == 0).all()
    assert torch.allclose(x[:, :4].mean((0, 1)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x[:, :4].std((0, 1), correction=0), torch.ones(3), atol=1e-5)


def test_audio_and_vision_are_averaged_where_wanted(tmp_path: Path) -> None:
    root = _written(tmp_path)
    steps, mean = (_load(root, time=t, standardise=False) for t in ("sequence", "mean"))
    assert mean.shapes == {"text": (6, 3), "audio": (4,), "vision": (5,)}
    whole = steps.test[1][0]["vision"]
    assert torch.allclose(mean.test[1][0]["vision"], whole[:4].mean(0))


def test_pieces_of_a_video_are_numbered_where_only_the_video_is_named(tmp_path: Path) -> None:
    def names(part: dict[str, Any]) -> None:
        part["id"] = [f"v{i // 6}" for i in range(12)]

    made = _load(_written(tmp_path, names))
    assert [entry.id for entry in made.train.entries[:2]] == ["v0#1", "v0#2"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.pop("vision"), r"Missing: \['vision'\]"),
        (lambda part: part.pop("labels"), "`labels` or `regression_labels`"),
        (lambda part: part.update(text=part["text"][1:]), "equally long"),
        (lambda part: part["labels"].fill(5), r"lie in \[-3, 3\]. Found 5.0 for `train0_0.0_1.0`"),
        (lambda part: part["labels"].fill(float("nan")), "Found nan"),
        (lambda part: part.update(audio=[["a"]]), "array of numbers"),
        (lambda part: part.update(text=part["text"][:, :2]), "alike in all splits"),
    ],
)
def test_bad_content_is_named(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _load(_written(tmp_path, change))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mosi_raw.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="a dictionary for each of `train`"):
        _load(tmp_path)
    with pytest.raises(FileNotFoundError, match="Pass its name as `file`"):
        _load(tmp_path, file="other.pkl")
    with pytest.raises(ValueError, match=r"`target` should be"):
        _load(tmp_path, target="acc5")
