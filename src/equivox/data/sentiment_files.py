"""CMU-MOSI and CMU-MOSEI: the pickles in which their features are passed on.

Three forms, told apart by their keys and shapes:

1. aligned, of MulT and MultiBench: `{"train" | "valid" | "test": {"text", "audio", "vision",
   "labels", "id"}}`, features (samples, time, dim), equally many steps of every modality.
2. not aligned: the same keys, its own number of steps for each modality.
3. of MMSA: `regression_labels` for `labels`, text features of BERT, and further keys.

They are read by `equivox.data.pickles`, which refuses all but plain values and arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from equivox.data import sequences, tables
from equivox.data.pickles import read_pickle, write_pickle

MODALITIES = ("text", "audio", "vision")
KEYS = {"train": ("train",), "validation": ("valid", "dev", "val"), "test": ("test",)}


class Part(NamedTuple):
    """One split: features by modality, scores (samples,) and ids."""

    inputs: Mapping[str, Tensor]
    scores: Tensor
    ids: Sequence[str]


def found(root: Path, names: Sequence[str]) -> Path:
    """The first of these files that is there; FileNotFoundError where none is."""
    for name in names:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"One of {', '.join(f'`{name}`' for name in names)} should lie in `{root}`. Found "
        f"{tables.beside(root / 'any')}. Pass its name as `file`."
    )


def read(path: Path) -> dict[str, Part]:
    """The splits of a pickle.

    :raises ValueError: Where keys are missing, lengths differ or scores lie outside [-3, 3].
    """
    return {split: _part(path, split, values) for split, values in _splits(path).items()}


def _splits(path: Path) -> dict[str, dict[str, Any]]:
    whole = read_pickle(path)
    parts = {}
    for split, keys in KEYS.items():
        key = next((k for k in keys if isinstance(whole, dict) and k in whole), None)
        if key is None or not isinstance(whole[key], dict):
            there = list(whole) if isinstance(whole, dict) else type(whole).__name__
            raise ValueError(
                f"`{path}` should hold a dictionary for each of `train`, `valid` and `test`. Found "
                f"{there}."
            )
        parts[split] = whole[key]
    return parts


def _part(path: Path, split: str, values: Mapping[str, Any]) -> Part:
    labels = next((key for key in ("regression_labels", "labels") if key in values), None)
    if labels is None or (missing := [m for m in MODALITIES if m not in values]):
        raise ValueError(
            f"`{path}` should hold `text`, `audio`, `vision` and `labels` or `regression_labels` "
            f"of each split. Found {list(values)} in {split}."
            + (f" Missing: {missing}." if labels is not None else "")
        )
    where = f"`{path.name}`, {split}, "
    inputs = {m: sequences.tensor(values[m], f"{where}`{m}`") for m in MODALITIES}
    scores = sequences.tensor(values[labels], f"{where}`{labels}`")
    ids = _ids(split, values.get("id"), len(scores))
    lengths = {m: len(x) for m, x in inputs.items()} | {labels: scores.numel(), "id": len(ids)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{where}all should be equally long, one score each. Found {lengths}.")
    scores = scores.flatten()
    for place in (~(scores.abs() <= 3)).nonzero().flatten().tolist():
        raise ValueError(
            f"{where}scores should lie in [-3, 3]. Found {float(scores[place])} for `{ids[place]}`."
        )
    return Part(inputs, scores, ids)


def _ids(split: str, given: Any, count: int) -> list[str]:
    """Names as the file has them; some files name only the video: its pieces are then numbered."""
    if given is None:
        return [f"{split}/{i}" for i in range(count)]
    names = [_name(each) for each in (given.tolist() if hasattr(given, "tolist") else given)]
    repeated, seen, ids = tables.counted(names), dict[str, int](), []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        ids.append(f"{name}#{seen[name]}" if name in repeated else name)
    return ids


def _name(given: Any) -> str:
    """A string, bytes, or a row of video, start and end."""
    if isinstance(given, bytes):
        return given.decode("utf-8", "replace")
    if isinstance(given, str | float | int):
        return str(given)
    return "_".join(map(_name, given))


# ── fake files ──────────────────────────────────────────────────────────────────────────────────

SCORES = (-3.0, -1.2, 0.0, 0.4, 1.6, 2.5)


def write_fake(
    path: Path, dims: Sequence[int], steps: Sequence[int], seed: int, mmsa: bool
) -> None:
    """A pickle of 12, 6 and 6 samples, the features of which follow the scores.

    :param dims: Of text, audio and vision; `steps` likewise.
    :param mmsa: In the form of MMSA instead of MulT's, which has ids in bytes.
    """
    draw = torch.Generator().manual_seed(seed)
    whole = {
        split: _fake_part(draw, split, count, dims, steps, mmsa)
        for split, count in (("train", 12), ("valid", 6), ("test", 6))
    }
    write_pickle(path, whole)


def _fake_part(
    draw: torch.Generator,
    split: str,
    count: int,
    dims: Sequence[int],
    steps: Sequence[int],
    mmsa: bool,
) -> dict[str, Any]:
    import numpy

    scores = torch.tensor([SCORES[i % len(SCORES)] for i in range(count)])
    part: dict[str, Any] = {}
    for modality, dim, time in zip(MODALITIES, dims, steps, strict=True):
        x = torch.randn(count, time, dim, generator=draw) + scores[:, None, None]
        x[:, time - 2 :] = 0.0  # padding
        part[modality] = x.numpy()
    part["audio"][0, 0, 0] = -numpy.inf
    if mmsa:
        lengths = {f"{m}_lengths": [t - 2] * count for m, t in zip(MODALITIES, steps, strict=True)}
        names = [f"{split}{i // 3}$_${i % 3}" for i in range(count)]
        words = [f"This is number {i}." for i in range(count)]
        more = {"raw_text": words, "id": names, "regression_labels": scores.numpy()}
        return part | more | {key: lengths[key] for key in ("audio_lengths", "vision_lengths")}
    rows = [[f"{split}{i // 3}", str(float(i)), str(i + 1.0)] for i in range(count)]
    return part | {"labels": scores.numpy()[:, None, None], "id": numpy.array(rows).astype("S")}
