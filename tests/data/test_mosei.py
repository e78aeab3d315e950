"""CMU-MOSEI: MMSA's form, and that no modality is read for another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.data import sentiment_files
from equivox.data.pickles import read_pickle


def test_each_modality_is_its_own(tmp_path: Path) -> None:
    data.fake("mosei", tmp_path)
    made = data.load("mosei", root=tmp_path, standardise=False)
    assert made.shapes == {"text": (6, 768), "audio": (9, 74), "vision": (7, 35)}
    whole = read_pickle(tmp_path / "unaligned_50.pkl")["test"]
    for modality in made.modalities:
        assert torch.equal(made.test[2][0][modality], torch.from_numpy(whole[modality][2]))


def test_the_forms_agree(tmp_path: Path) -> None:
    for name, mmsa in (("mosei_senti_data.pkl", False), ("unaligned_50.pkl", True)):
        sentiment_files.write_fake(tmp_path / name, (3, 4, 5), (4, 4, 4), 7, mmsa)
    first = data.load("mosei", root=tmp_path, target="acc7")
    second = data.load("mosei", root=tmp_path, target="acc7", file="unaligned_50.pkl")
    assert torch.equal(first.train.target, second.train.target)
    assert torch.equal(first.train[3][0]["audio"], second.train[3][0]["audio"])
    assert first.classes == ("-3", "-2", "-1", "0", "1", "2", "3")


def test_a_cut_off_pickle_is_named(tmp_path: Path) -> None:
    data.fake("mosei", tmp_path)
    path = tmp_path / "unaligned_50.pkl"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"unaligned_50\.pkl` should be a whole pickle"):
        data.load("mosei", root=tmp_path)
