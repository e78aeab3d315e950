"""IEMOCAP and MELD: pickles of dialogues, each utterance one vector of every modality.

One dictionary:

    trainVid testVid          the dialogues of both; a `valVid` or `devVid`, where it is there
    label                     by dialogue: the class of each utterance, a number or a name
    text audio visual         by dialogue: (utterances, dim)

They are read by `equivox.data.pickles`, which refuses all but plain values and arrays. Utterances
of one dialogue are never divided between splits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.data import sequences, tables
from equivox.data.field import Contents, Entry
from equivox.data.pickles import read_pickle, write_pickle
from equivox.data.sequences import Features
from equivox.encoders import MLP

MODALITIES = ("text", "audio", "visual")
LISTS = {"train": ("trainVid",), "validation": ("valVid", "devVid"), "test": ("testVid",)}

HoldOut = Callable[[Sequence[Entry]], Mapping[str, Sequence[Entry]]]


def dialogue(entry: Entry) -> str:
    """Of an utterance."""
    return entry.id.rpartition("/")[0]


def contents(
    path: Path,
    labels: Mapping[object, str],
    classes: tuple[str, ...],
    hold_out: HoldOut,
    standardise: bool,
    reason: str = "another class",
) -> Contents:
    """What a pickle of dialogues holds.

    :param labels: The class name of every label of the file.
    :param classes: Those that are kept; the utterances of others are left out, for `reason`.
    :param hold_out: Divides the training utterances, where the file lists no validation.
    :param standardise: By the training samples.
    """
    whole = _whole(path)
    named = {split: _listed(path, whole, split, labels) for split in LISTS}
    left_out = [e.id for part in named.values() for e, name in part if name not in classes]
    entries: dict[str, Sequence[Entry]] = {
        split: [e._replace(target=classes.index(name)) for e, name in part if name in classes]
        for split, part in named.items()
    }
    if not named["validation"]:
        entries = {**hold_out(entries["train"]), "test": entries["test"]}
    prepared, decoders = _prepared(path, entries, standardise)
    return Contents(
        entries=prepared,
        decoders=decoders,
        architectures={m: partial(MLP, decoder.shape[0]) for m, decoder in decoders.items()},
        classes=classes,
        left_out={reason: left_out} if left_out else {},
    )


def _whole(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"`{path}` should be there. Found {tables.beside(path)}.")
    whole = read_pickle(path)
    wanted = ("trainVid", "testVid", "label", *MODALITIES)
    if not isinstance(whole, dict) or any(key not in whole for key in wanted):
        found = list(whole) if isinstance(whole, dict) else f"a {type(whole).__name__}"
        raise ValueError(
            f"`{path}` should hold a dictionary of {', '.join(f'`{k}`' for k in wanted)}. Found "
            f"{found}."
        )
    return whole


def _listed(
    path: Path, whole: Mapping[str, Any], split: str, labels: Mapping[object, str]
) -> list[tuple[Entry, str]]:
    """The utterances of a split with their class names, in order of dialogues."""
    key = next((key for key in LISTS[split] if key in whole), None)
    dialogues = [] if key is None else sorted(whole[key], key=str)
    found = []
    for each in dialogues:
        names, vectors = _utterances(path, whole, each)
        for i, label in enumerate(names):
            if label not in labels:
                raise ValueError(
                    f"Labels of `{path}` should be among {list(labels)}. Found `{label!r}` for "
                    f"utterance {i} of dialogue `{each}`."
                )
            sources = {m: x[i] for m, x in vectors.items()}
            found.append((Entry(f"{each}/{i}", 0, sources), labels[label]))
    return found


def _utterances(
    path: Path, whole: Mapping[str, Any], each: Any
) -> tuple[list[object], dict[str, Tensor]]:
    lacking = [key for key in ("label", *MODALITIES) if each not in whole[key]]
    if lacking:
        raise ValueError(
            f"`{path}` should hold every listed dialogue. Found no `{each}` in {lacking}."
        )
    raw = whole["label"][each]
    names = list(raw.tolist() if hasattr(raw, "tolist") else raw)
    where = f"`{path.name}`, dialogue `{each}`, "
    vectors = {m: sequences.tensor(whole[m][each], f"{where}`{m}`") for m in MODALITIES}
    shapes = {m: tuple(x.shape) for m, x in vectors.items()}
    if any(len(s) != 2 or s[0] != len(names) for s in shapes.values()):
        raise ValueError(
            f"{where}features should be (utterances, dim), of {len(names)} labels. Found {shapes}."
        )
    return names, vectors


def _prepared(
    path: Path, entries: Mapping[str, Sequence[Entry]], standardise: bool
) -> tuple[dict[str, list[Entry]], dict[str, Features]]:
    """The utterances with features that are finite and, if wanted, standardised."""
    new: dict[str, list[dict[str, Tensor]]] = {s: [{} for _ in part] for s, part in entries.items()}
    decoders = {}
    for modality in MODALITIES:
        rows = [e.sources[modality] for part in entries.values() for e in part]
        if len({len(row) for row in rows}) != 1:
            found = sorted({len(row) for row in rows})
            raise ValueError(
                f"Vectors of `{modality}` in `{path}` should be equally long. Found lengths "
                f"{found}."
            )
        x, replaced = sequences.finite(torch.stack(rows))
        lengths = [len(part) for part in entries.values()]
        parts = dict(zip(entries, x.split(lengths), strict=True))
        parts = sequences.standardised(parts) if standardise else parts
        decoders[modality] = Features((x.shape[1],), standardise, replaced)
        for split, part in parts.items():
            for sources, row in zip(new[split], part, strict=True):
                sources[modality] = row
    return {
        split: [e._replace(sources=s) for e, s in zip(part, new[split], strict=True)]
        for split, part in entries.items()
    }, decoders


def write_fake(
    path: Path,
    train: Sequence[Any],
    test: Sequence[Any],
    classes: int,
    dims: Sequence[int],
    seed: int,
) -> None:
    """A pickle of dialogues of six utterances, the features of which follow the class."""
    draw = torch.Generator().manual_seed(seed)
    whole: dict[str, Any] = {"trainVid": list(train), "testVid": list(test)}
    whole |= {key: {} for key in ("speaker", "label", "sentence", *MODALITIES)}
    for place, each in enumerate([*train, *test]):
        numbers = torch.arange(place, place + 6) % classes
        whole["label"][each] = numbers.tolist()
        whole["speaker"][each] = ["M", "F"] * 3
        whole["sentence"][each] = [f"This is utterance {i}." for i in range(6)]
        for modality, dim in zip(MODALITIES, dims, strict=True):
            x = torch.randn(6, dim, generator=draw)
            x[torch.arange(6), numbers] += 3.0
            whole[modality][each] = x.numpy()
    write_pickle(path, whole)
