"""Small real sets, each one npz file of plain arrays with a fixed split.

A set `name` is read from `<root>/<name>/<name>.npz`, where the root is the option `root` or the
environment variable `EQUIVOX_DATA`. The first axis of every array is the sample; `split` is 0 for
training, 1 for validation, 2 for test. Values are standardised by training samples alone: vectors
per feature, signals per channel (and moment, where all samples start alike), images and
spectrograms as a whole, regression targets too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from equivox.data.archives import check_numbered, read_arrays
from equivox.data.base import MultimodalData, Recipe, divide
from equivox.encoders import CNN1D, MLP, BagOfTokens, Encoder, SmallCNN
from equivox.errors import nearest

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

Scale = tuple[float, float]


class Kind(NamedTuple):
    """How one kind of modality is standardised and encoded."""

    axes: tuple[int, ...] | None
    """What a mean is taken over; None leaves the values as they are."""
    encoder: Callable[[Tensor], Callable[[], Encoder]]
    """The builder of an encoder for a prepared array (samples, ...)."""


VECTOR = Kind((0,), lambda x: partial(MLP, x.shape[1]))
SIGNAL = Kind((0, 2), lambda x: partial(CNN1D, x.shape[1]))
CYCLE = Kind((0,), SIGNAL.encoder)  # all samples follow one load profile, which would hide the rest
IMAGE = Kind((0, 1, 2, 3), lambda x: partial(SmallCNN, x.shape[1]))
TOKENS = Kind(None, lambda x: partial(BagOfTokens, int(x.max()) + 1))

MFEAT = ("pixels", "fourier", "profiles", "zernike", "karhunen", "morphological")
HYDRAULIC = ("pressure", "flow", "temperature", "power", "vibration", "cooling")
HAR = ("phone_acc", "phone_gyro", "watch_acc", "watch_gyro")
EMOJI = {
    "image": ("image", IMAGE),
    "line_art": ("line_art", IMAGE),
    "text": ("text_tokens", TOKENS),
}

VOCABULARY = "vocab"
"""The words that token numbers stand for, where a file has them."""

LONG = Recipe(epochs=30)


def avmnist(
    name: str,
    seed: int,
    *,
    image: str = "image",
    audio: str = "audio_noisy",
    train_samples: int | None = None,
    root: str | None = None,
) -> MultimodalData:
    """A written and a spoken digit.

    :param image: "image", or "image_degraded" to spoil the stronger modality.
    :param audio: "audio_noisy", or "audio" for clean recordings.
    :param train_samples: Keep the first of a permutation drawn by `seed`; None keeps all.
    """
    _one_of("image", image, ("image", "image_degraded"))
    _one_of("audio", audio, ("audio", "audio_noisy"))
    return _data(
        name,
        {"seed": seed, "image": image, "audio": audio, "train_samples": train_samples},
        root,
        {"image": (image, IMAGE), "audio": (audio, IMAGE)},
        keep=train_samples,
        recipe=Recipe(epochs=12),
    )


def hydraulic(
    name: str,
    seed: int,
    *,
    target: str = "accumulator_bar",
    split: str = "split",
    modalities: Sequence[str] | str | None = None,
    root: str | None = None,
) -> MultimodalData:
    """Sensors of a hydraulic test rig.

    :param target: "accumulator_bar" for regression (in standard deviations of the training
        targets, see `target_scale`); "valve", "pump" or "cooler" for classification.
    :param split: "split" keeps all cycles of one condition together; "split_random", which most
        papers use, does not, and leaks.
    :param modalities: Which, in which order; all by default.
    """
    _one_of("target", target, ("accumulator_bar", "valve", "pump", "cooler"))
    _one_of("split", split, ("split", "split_random"))
    chosen = _chosen(modalities, HYDRAULIC)
    return _data(
        name,
        {"seed": seed, "target": target, "split": split, "modalities": chosen},
        root,
        {m: (m, CYCLE) for m in chosen},
        target=target,
        classes=None if target == "accumulator_bar" else f"{target}_classes",
        split=split,
        recipe=LONG,
    )


def views(
    known: Mapping[str, tuple[str, Kind]],
    default: Sequence[str] | None = None,
    recipe: Recipe = LONG,
) -> Callable[..., MultimodalData]:
    """A reader of a set of which any modalities may be chosen.

    :param known: The array and the kind of every modality.
    :param default: What is read unless chosen otherwise; all where not given.
    :param recipe: The usual training settings.
    """

    def read(
        name: str,
        seed: int,
        *,
        modalities: Sequence[str] | str | None = default,
        root: str | None = None,
    ) -> MultimodalData:
        chosen = _chosen(modalities, known)
        options = {"seed": seed, "modalities": chosen}
        return _data(name, options, root, {m: known[m] for m in chosen}, recipe)

    return read


SETS: dict[str, Callable[..., MultimodalData]] = {
    "avmnist": avmnist,
    "mfeat": views({m: (m, VECTOR) for m in MFEAT}),
    "har_phone_watch": views({m: (m, SIGNAL) for m in HAR}, recipe=Recipe()),
    "hydraulic": hydraulic,
    "emoji": views(EMOJI, default=("image", "text")),
}


def _data(
    name: str,
    options: dict[str, Any],
    root: str | None,
    columns: Mapping[str, tuple[str, Kind]],
    recipe: Recipe,
    target: str = "label",
    classes: str | None = "classes",
    split: str = "split",
    keep: int | None = None,
) -> MultimodalData:
    """Read, choose the rows of each split, standardise by the training rows."""
    wanted = [*(array for array, _ in columns.values()), target, split, *filter(None, [classes])]
    path = _path(name, root)
    arrays = read_arrays(path, wanted, (VOCABULARY,), lists=("classes", VOCABULARY))
    for array, _ in columns.values():
        if arrays[array].ndim < 2:
            raise ValueError(
                f"`{array}` of `{path}` should hold several numbers a sample. Found an array of "
                f"{arrays[array].shape}."
            )
    parts = [torch.as_tensor(arrays[split] == i).nonzero()[:, 0] for i in range(3)]
    check_numbered(path, split, arrays[split], len(parts))
    if classes:
        check_numbered(path, target, arrays[target], len(arrays[classes]))
    train, validation, test = parts
    if keep is not None:
        train = _first(train, keep, options["seed"])
    inputs = {m: _prepared(arrays[array], kind, train) for m, (array, kind) in columns.items()}
    words = arrays[VOCABULARY].tolist() if VOCABULARY in arrays else None
    vocabulary = {m: words for m, (_, kind) in columns.items() if words and kind is TOKENS}
    labels = arrays[classes] if classes else None
    values, scale = _target(arrays[target], train, labels)
    rows = torch.cat([train, validation, test])
    chosen = {m: x[rows] for m, x in inputs.items()}
    return MultimodalData(
        name,
        options if root is None else options | {"root": str(root)},
        *divide(chosen, values[rows], len(train), len(validation), vocabulary),
        architectures={m: kind.encoder(inputs[m]) for m, (_, kind) in columns.items()},
        recipe=recipe,
        classes=() if labels is None else tuple(map(str, labels)),
        target_scale=scale,
    )


def _path(name: str, root: str | None) -> Path:
    found = root or os.environ.get("EQUIVOX_DATA")
    if not found:
        raise FileNotFoundError(
            f"`{name}` is read from a file. Found no folder to look in. Set the environment "
            f"variable `EQUIVOX_DATA` to the folder that holds `{name}/{name}.npz`, or pass `root`."
        )
    path = Path(found).expanduser() / name / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"`{name}` should lie at `{path}`. Found no such file. Set the environment variable "
            "`EQUIVOX_DATA`, or pass `root`."
        )
    return path


def _first(rows: Tensor, count: int, seed: int) -> Tensor:
    """The first rows of a permutation drawn by the seed."""
    if not 0 < count <= len(rows):
        raise ValueError(
            f"`train_samples` should lie in 1 … {len(rows)}. Found `train_samples = {count}`."
        )
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]


def _prepared(array: Array, kind: Kind, train: Tensor) -> Tensor:
    """Tokens as they are; anything else with a channel axis, standardised by the training rows."""
    if kind.axes is None:
        return torch.as_tensor(array.astype("int64"))
    x = torch.as_tensor(array.astype("float32"))
    x = x[:, None] if x.ndim < len(kind.axes) else x  # one channel
    mean, std = _moments(x[train], kind.axes)
    return (x - mean) / std


def _target(array: Array, train: Tensor, classes: Array | None) -> tuple[Tensor, Scale]:
    """Class numbers as they are; numbers (samples, 1) standardised by the training rows."""
    if classes is not None:
        return torch.as_tensor(array.astype("int64")), (0.0, 1.0)
    y = torch.as_tensor(array.astype("float32"))[:, None]
    mean, std = _moments(y[train], (0,))
    return (y - mean) / std, (mean.item(), std.item())


def _moments(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over some axes; a constant has deviation 1."""
    std, mean = torch.std_mean(x, axes, keepdim=True)
    return mean, torch.where(std > 0, std, 1.0)


def _chosen(modalities: Sequence[str] | str | None, known: Iterable[str]) -> list[str]:
    """Modalities by name, also as one string with commas."""
    if isinstance(modalities, str):
        modalities = [name.strip() for name in modalities.split(",")]
    chosen = list(known if modalities is None else modalities)
    for name in chosen:
        _one_of("modalities", name, known)
    return chosen


def _one_of(option: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(
            f"`{option}` should be among {', '.join(known)}. Found `{value}`. "
            f"{nearest(str(value), known)}"
        )
