"""Files: what is read from them, how it is standardised, and what a bad one gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox import data
from equivox.data import npz
from equivox.task import Classification, Regression

SAMPLES = 40
Write = Callable[..., Path]


def _arrays(name: str) -> dict[str, Any]:
    """The arrays of a set, small, with values that no scaler leaves alone."""
    draw = np.random.default_rng(0)
    split = np.arange(SAMPLES, dtype=np.uint8) % 4 // 2 + np.arange(SAMPLES) % 4 // 3
    label = np.arange(SAMPLES, dtype=np.uint8) % 2
    common = {"split": split, "label": label, "classes": np.array(["no", "yes"])}
    pixels = draw.integers(0, 256, (SAMPLES, 16, 16), dtype=np.uint8)
    signal = (5 + 3 * draw.standard_normal((SAMPLES, 2, 20))).astype(np.float32)
    if name == "avmnist":
        shown = ("image", "image_degraded", "audio", "audio_noisy")
        return common | {array: pixels // (i + 1) for i, array in enumerate(shown)}
    if name == "mfeat":
        values = 9 + 7 * draw.standard_normal((SAMPLES, 5))
        return common | dict.fromkeys(npz.MFEAT, values.astype(np.float32))
    if name == "har_phone_watch":
        return common | dict.fromkeys(npz.HAR, signal.astype(np.float16))
    if name == "emoji":
        tokens = draw.integers(0, 30, (SAMPLES, 6)).astype(np.uint16)
        images = np.stack([pixels] * 3, 1)
        return common | {"image": images, "line_art": pixels, "text_tokens": tokens}
    bar = draw.choice([90.0, 130.0], SAMPLES).astype(np.float32)
    targets = {"accumulator_bar": bar, "split_random": split[::-1]}
    for target in ("valve", "pump", "cooler"):
        targets |= {target: label, f"{target}_classes": common["classes"]}
    return {"split": split} | targets | dict.fromkeys(npz.HYDRAULIC, signal)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the file of a set, with some arrays replaced or left out; `EQUIVOX_DATA` finds it."""
    monkeypatch.setenv("EQUIVOX_DATA", str(tmp_path))

    def file(name: str, **changes: Any) -> Path:
        arrays = {k: x for k, x in (_arrays(name) | changes).items() if x is not None}
        path = tmp_path / name / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **arrays)
        return path

    return file


@pytest.mark.parametrize("name", npz.SETS)
def test_a_set_is_read_and_encoded(write: Write, name: str) -> None:
    write(name)
    made = data.load(name)
    split = _arrays(name)["split"]
    sizes = [len(part) for part in (made.train, made.validation, made.test)]
    assert sizes == [int((split == i).sum()) for i in range(3)]
    inputs, target, _ = next(iter(made.loader("train", batch_size=8)))
    for modality, encoder in made.encoders().items():
        assert encoder(inputs[modality]).shape == (8, made.widths[modality])
    assert made.task.loss(torch.zeros(8, made.outputs), target).isfinite()
    again = data.load(name, **made.options)
    assert torch.equal(made.test.inputs[made.modalities[0]], again.test.inputs[made.modalities[0]])


@pytest.mark.parametrize(
    ("name", "axes"),
    [("mfeat", (0,)), ("har_phone_watch", (0, 2)), ("avmnist", None), ("hydraulic", (0,))],
)
def test_scalers_see_the_training_samples_alone(
    write: Write, name: str, axes: tuple[int, ...] | None
) -> None:
    write(name)
    made = data.load(name)
    modality = made.modalities[0]
    array, split = _arrays(name)[modality].astype(float), _arrays(name)["split"]
    mean = array[split == 0].mean(axis=axes, keepdims=True)
    std = array[split == 0].std(axis=axes, ddof=1, keepdims=True)
    for i, part in enumerate((made.train, made.validation, made.test)):
        expected = (array[split == i] - mean) / std
        assert np.allclose(
            part.inputs[modality].numpy().reshape(expected.shape), expected, atol=1e-4
        )


def test_a_constant_feature_becomes_zero(write: Write) -> None:
    write("mfeat", fourier=np.full((SAMPLES, 3), 7.0))
    assert data.load("mfeat").test.inputs["fourier"].abs().max() == 0


def test_tokens_stay_numbers(write: Write) -> None:
    write("emoji")
    made = data.load("emoji")
    assert made.modalities == ("image", "text")
    expected = _arrays("emoji")["text_tokens"][_arrays("emoji")["split"] == 2]
    assert made.test.inputs["text"].tolist() == expected.tolist()


def test_avmnist_has_four_variants(write: Write) -> None:
    write("avmnist")
    clean, spoiled = (
        data.load("avmnist", image="image_degraded", audio=audio)
        for audio in ("audio", "audio_noisy")
    )
    assert clean.modalities == spoiled.modalities == ("image", "audio")
    assert torch.equal(clean.test.inputs["image"], spoiled.test.inputs["image"])
    assert not torch.equal(clean.test.inputs["audio"], spoiled.test.inputs["audio"])


def test_a_smaller_training_set_is_nested_and_drawn_by_the_seed(write: Write) -> None:
    write("avmnist", label=np.arange(SAMPLES) % 10, classes=np.arange(10).astype(str))
    small, large = (data.load("avmnist", train_samples=n).train.target for n in (5, 8))
    assert large[:5].tolist() == small.tolist()
    other = data.load("avmnist", train_samples=8, seed=1).train.target
    assert other.tolist() != large.tolist()
    with pytest.raises(ValueError, match="1 … 20"):
        data.load("avmnist", train_samples=21)


def test_hydraulic_is_regression_or_classification(write: Write) -> None:
    write("hydraulic")
    made = data.load("hydraulic")
    mean, std = made.target_scale
    bars = _arrays("hydraulic")["accumulator_bar"][_arrays("hydraulic")["split"] == 2]
    assert np.allclose(made.test.target[:, 0].numpy() * std + mean, bars, atol=1e-3)
    assert made.task == Regression(1)
    valve = data.load("hydraulic", target="valve", split="split_random", modalities="flow, power")
    assert valve.task == Classification(2)
    assert valve.modalities == ("flow", "power")


def test_no_folder_and_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EQUIVOX_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="environment variable `EQUIVOX_DATA`"):
        data.load("mfeat")
    with pytest.raises(FileNotFoundError, match="Found no such file"):
        data.load("mfeat", root=str(tmp_path))


def test_a_root_that_was_passed_is_an_option(write: Write) -> None:
    root = str(write("mfeat").parent.parent)
    assert data.load("mfeat", root=root).options["root"] == root
    assert "root" not in data.load("mfeat").options


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.98])
def test_a_truncated_file_is_named(write: Write, kept: float) -> None:
    path = write("mfeat")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(ValueError, match=r"mfeat.npz` should be a whole npz file"):
        data.load("mfeat")


def test_a_damaged_array_is_found(write: Write) -> None:
    path = write("mfeat")
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 255
    path.write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="whole npz file"):
        data.load("mfeat")


def test_pickled_objects_are_refused(write: Write) -> None:
    write("mfeat", label=np.array([{}] * SAMPLES, dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        data.load("mfeat")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zernike": None}, r"Found no \['zernike'\]"),
        ({"zernike": np.zeros((3, 5))}, "equally long"),
        ({"label": np.full(SAMPLES, 2)}, r"0 … 1. Found 2"),
        (
            {"pixels": np.full((SAMPLES, 2), np.nan)},
            "`pixels` should be finite. Found others in 40",
        ),
    ],
)
def test_wrong_contents_are_named(write: Write, changes: dict[str, Any], message: str) -> None:
    write("mfeat", **changes)
    with pytest.raises(ValueError, match=message):
        data.load("mfeat")


@pytest.mark.parametrize(
    ("name", "options", "nearest"),
    [
        ("avmnist", {"audio": "audio_nois"}, "audio_noisy"),
        ("avmnist", {"image": "image_degrade"}, "image_degraded"),
        ("hydraulic", {"target": "valves"}, "valve"),
        ("hydraulic", {"split": "random"}, "split_random"),
        ("mfeat", {"modalities": ["pixel"]}, "pixels"),
        ("mfeat", {"modality": "pixels"}, "modalities"),
    ],
)
def test_wrong_options_are_answered_with_the_nearest(
    write: Write, name: str, options: dict[str, Any], nearest: str
) -> None:
    write(name)
    with pytest.raises(ValueError, match=f"Did you mean `{nearest}`"):
        data.load(name, **options)


@pytest.mark.parametrize("name", npz.SETS)
def test_the_real_sets_are_read(data_root: Path, name: str) -> None:
    made = data.load(name, root=str(data_root))
    assert min(len(made.train), len(made.validation), len(made.test)) > 100
    for modality, encoder in made.encoders().items():
        assert encoder(made.test.inputs[modality][:2]).isfinite().all()
