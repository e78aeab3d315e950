"""Coloured-and-gray MNIST: idx files, and colours that tell the class in training alone."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import data
from equivox.data import mnist
from equivox.data.base import MultimodalData
from equivox.data.digits import PALETTE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 and 300 images, which no test changes."""
    folder = tmp_path_factory.mktemp("mnist")
    mnist.write_fake(folder, 600, 300, 0)
    return folder


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("colored_gray_mnist", root=root, **options)


def _agreement(made: MultimodalData, split: str) -> float:
    """How often the nearest colour is that of the class."""
    entries = getattr(made, split).entries
    colours = torch.stack([entry.sources["colour"][1] for entry in entries])
    nearest = torch.cdist(colours, torch.tensor(PALETTE)).argmin(1)
    return float((nearest == getattr(made, split).target).float().mean())


def test_colours_tell_the_class_in_training_alone(root: Path) -> None:
    made = _load(root, variance=0.001)
    assert _agreement(made, "train") > 0.97
    assert _agreement(made, "validation") < 0.35
    assert _agreement(made, "test") < 0.25
    assert _agreement(_load(root, variance=0.001, agreement=1.0), "test") > 0.97


def test_every_twelfth_is_held_out(root: Path) -> None:
    made = _load(root)
    held = [entry.id for entry in made.validation.entries]  # type: ignore[attr-defined]
    assert held[:2] == ["train/00000", "train/00012"]
    assert [len(made.train), len(made.validation), len(made.test)] == [550, 50, 300]


def test_both_modalities_are_one_image(root: Path) -> None:
    made = _load(root)
    raw = mnist.read_mnist(root)["test"]
    inputs, target, _ = made.test[17]
    image = raw.images[17].float() / 255
    assert torch.allclose(inputs["gray"][0], (image - 0.1307) / 0.3081)
    colour = made.test.entries[17].sources["colour"][1]  # type: ignore[attr-defined]
    red = (image * colour[0] - 0.4914) / 0.2023
    assert torch.allclose(inputs["colour"][0], red, atol=1e-6)
    assert int(target) == int(raw.target[17])


def test_colours_are_drawn_by_the_seed(root: Path) -> None:
    first, again, other = (
        data.load("colored_gray_mnist", seed, root=root).test[3][0]["colour"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gzip_and_plain_files_agree(root: Path, tmp_path: Path) -> None:
    for path in root.iterdir():
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    for part, digits in mnist.read_mnist(root).items():
        assert torch.equal(digits.images, mnist.read_mnist(tmp_path)[part].images)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("train-images-idx3-ubyte", b"", "whole idx file"),
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03" + bytes(12), "whole idx file"),
        ("t10k-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x02\x01\x02", "one digit each"),
        ("t10k-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x05\x01", "Found 9 bytes"),
    ],
)
def test_bad_files_are_named(name: str, raw: bytes, message: str, tmp_path: Path) -> None:
    mnist.write_fake(tmp_path, 20, 10, 0)
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        _load(tmp_path)


def test_a_cut_off_gzip_is_named(tmp_path: Path) -> None:
    mnist.write_fake(tmp_path, 20, 10, 0, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"ubyte\.gz` should be whole"):
        _load(tmp_path)
    with pytest.raises(ValueError, match=r"`agreement` should lie in \[0, 1\]"):
        _load(tmp_path, agreement=1.1)


def test_how_colours_were_drawn_is_a_part_of_the_preprocessing(root: Path) -> None:
    chosen = ({}, {"variance": 0.05}, {"agreement": 0.5}, {"train_agreement": 0.9})
    assert len({_load(root, **options).facts["preprocessing"] for options in chosen}) == 4
