"""Coloured and gray digits: the colour is a shortcut in training, and the shift takes it away."""

import pytest
import torch
import torch.nn.functional as F

from equivox import data
from equivox.data import MultimodalData


@pytest.fixture(scope="module")
def shifted() -> MultimodalData:
    return data.load("digits")


@pytest.fixture(scope="module")
def iid() -> MultimodalData:
    return data.load("digits", variant="iid")


def test_all_images_are_split_60_10_30(shifted: MultimodalData) -> None:
    sizes = [len(split) for split in (shifted.train, shifted.validation, shifted.test)]
    assert sizes == [1078, 179, 540]
    assert shifted.shapes == {"gray": (1, 8, 8), "colour": (3, 8, 8)}


def test_the_noise_is_as_strong_as_stated(shifted: MultimodalData) -> None:
    # The first column of the images is almost empty: what varies there is the noise.
    gray, colour = (shifted.train.inputs[m][..., 0] for m in ("gray", "colour"))
    assert gray.std().item() == pytest.approx(0.25, abs=0.01)
    assert colour.std().item() == pytest.approx(0.20, abs=0.01)


def test_the_variants_differ_in_the_colours_of_validation_and_test_alone(
    shifted: MultimodalData, iid: MultimodalData
) -> None:
    for modality in shifted.modalities:
        assert torch.equal(shifted.train.inputs[modality], iid.train.inputs[modality])
    assert torch.equal(shifted.test.inputs["gray"], iid.test.inputs["gray"])
    assert torch.equal(shifted.test.target, iid.test.target)
    moved = (shifted.test.inputs["colour"] != iid.test.inputs["colour"]).flatten(1).any(1)
    assert moved.float().mean().item() == pytest.approx((0.98 - 0.5) * 0.9, abs=0.06)


def test_the_shift_takes_the_shortcut_away(shifted: MultimodalData, iid: MultimodalData) -> None:
    assert _linear_accuracy(iid) > 0.95
    assert 0.5 < _linear_accuracy(shifted) < 0.75


def test_an_unknown_variant_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean `shifted`"):
        data.load("digits", variant="shift")


def _linear_accuracy(made: MultimodalData) -> float:
    """Of the mean colour and its square, by least squares."""
    train, test = (
        F.pad(torch.cat([mean, mean.square(), mean.roll(1, 1) * mean], 1), (0, 1), value=1.0)
        for mean in (part.inputs["colour"].mean((2, 3)) for part in (made.train, made.test))
    )
    weights = torch.linalg.lstsq(train, F.one_hot(made.train.target).float()).solution
    return ((test @ weights).argmax(1) == made.test.target).float().mean().item()
