"""CMU-MOSI and CMU-MOSEI: sentiment scores in [-3, 3], the labels made of them, and the features.

Numbers that are not finite, as the audio features have them, become 0 and are counted: see
`Features.replaced`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from equivox.arguments import choice
from equivox.data import sentiment_files, sequences
from equivox.data.field import Contents, Entry
from equivox.data.sentiment_files import MODALITIES, Part
from equivox.data.sequences import Features
from equivox.encoders import MLP
from equivox.encoders_hf import SequenceTransformer


class Rule(NamedTuple):
    """A label made of a score: the class names, and the number of a score, None to leave it out."""

    classes: tuple[str, ...]
    number: Callable[[float], int | None]


def _three(score: float) -> int:
    return 0 if score < -0.5 else 2 if score > 0.5 else 1


RULES = {
    "acc2": Rule(("negative", "non-negative"), lambda score: int(score >= 0)),
    "acc2_nonzero": Rule(
        ("negative", "positive"), lambda score: None if score == 0 else int(score > 0)
    ),
    "three": Rule(("negative", "neutral", "positive"), _three),
    "acc7": Rule(
        ("-3", "-2", "-1", "0", "1", "2", "3"),
        lambda score: round(min(max(score, -3.0), 3.0)) + 3,  # a half goes to the even number
    ),
}
TARGETS = ("regression", *RULES)


def reader(names: Sequence[str]) -> Callable[..., Contents]:
    """The `read` of a set whose pickle has one of these names; the first that is there is read."""

    def read(
        root: Path,
        *,
        target: str = "regression",
        time: str = "sequence",
        standardise: bool = True,
        file: str | None = None,
    ) -> Contents:
        """The pickle under `root`.

        :param target: "regression": the score; "acc2": negative or not (BalanceMM);
            "acc2_nonzero": negative or positive, zeros left out; "three": below -0.5, above 0.5,
            between; "acc7": rounded.
        :param time: "sequence", or "mean" of audio and vision over time (ReconBoost).
        :param standardise: By the training samples; published code takes the features as they are.
        :param file: The name of the pickle.
        """
        return _contents(root, names if file is None else (file,), target, time, standardise)

    return read


def _contents(
    root: Path, names: Sequence[str], target: str, time: str, standardise: bool
) -> Contents:
    choice("target", target, TARGETS)
    choice("time", time, ("sequence", "mean"))
    path = sentiment_files.found(root, names)
    parts = sentiment_files.read(path)
    columns, decoders = {}, {}
    for modality in MODALITIES:
        columns[modality], decoders[modality] = _column(path, parts, modality, time, standardise)
    entries, left_out = _entries(parts, columns, target)
    return Contents(
        entries=entries,
        decoders=decoders,
        architectures={m: _encoder(decoder.shape) for m, decoder in decoders.items()},
        classes=() if target == "regression" else RULES[target].classes,
        left_out={} if target != "acc2_nonzero" else {"a score of zero": left_out},
    )


def _column(
    path: Path, parts: Mapping[str, Part], modality: str, time: str, standardise: bool
) -> tuple[dict[str, Tensor], Features]:
    """One modality of all splits, and its decoder."""
    found, replaced = {}, 0
    for split, part in parts.items():
        found[split], count = sequences.finite(part.inputs[modality])
        replaced += count
    shapes = {tuple(x.shape[1:]) for x in found.values()}
    if len(shapes) > 1 or len(shape := shapes.pop()) not in (1, 2):
        raise ValueError(
            f"`{modality}` of `{path}` should be (samples, time, dim) or (samples, dim), alike in "
            f"all splits. Found { {s: tuple(x.shape) for s, x in found.items()} }."
        )
    if time == "mean" and modality != "text" and len(shape) == 2:
        found = {split: sequences.time_mean(x) for split, x in found.items()}
    if standardise:
        found = sequences.standardised(found)
    return found, Features(tuple(found["train"].shape[1:]), standardise, replaced)


def _entries(
    parts: Mapping[str, Part], columns: Mapping[str, Mapping[str, Tensor]], target: str
) -> tuple[dict[str, list[Entry]], list[str]]:
    entries: dict[str, list[Entry]] = {split: [] for split in parts}
    left_out = []
    for split, part in parts.items():
        for i, (id_, score) in enumerate(zip(part.ids, part.scores.tolist(), strict=True)):
            label = [score] if target == "regression" else RULES[target].number(score)
            sources = {m: x[split][i] for m, x in columns.items()}
            if label is None:
                left_out.append(id_)
            else:
                entries[split].append(Entry(id_, label, sources))
    return entries, left_out


def _encoder(shape: tuple[int, ...]) -> Callable[[], MLP | SequenceTransformer]:
    return partial(MLP, shape[0]) if len(shape) == 1 else partial(SequenceTransformer, shape[1])
