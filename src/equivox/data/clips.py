"""What several sets of video clips share: their lists, their folders, which are long enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.arguments import choice
from equivox.data import fakes, media, packed, tables
from equivox.data.arrays import read_array
from equivox.data.decoders import FileDecoder, Frames, PackedFrames
from equivox.data.field import Damaged, Entry
from equivox.data.pickles import write_pickle

SUBSETS = {"training": "train", "validation": "validation", "testing": "test"}

Clips = Sequence[tuple[str, str]]
"""The clips of a split, each with its class as it is written in the list."""


def by_subset(path: Path) -> dict[str, Clips]:
    """The clips of each split in a JSON list `{clip: {"subset": …, "label": …}}`.

    The list may be the "database" of the file.
    """
    content = tables.read_json(path)
    listed = content.get("database", content) if isinstance(content, dict) else content
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"`{path}` should hold a dictionary of clips. Found none.")
    found: dict[str, list[tuple[str, str]]] = {part: [] for part in SUBSETS.values()}
    for clip, facts in sorted(listed.items()):
        known = isinstance(facts, dict) and "label" in facts and facts.get("subset") in SUBSETS
        if not known:
            raise ValueError(
                f"`{path}` should say of every clip its `label` and its `subset`, one of "
                f"{', '.join(SUBSETS)}. Found {facts!r} for `{clip}`."
            )
        found[SUBSETS[facts["subset"]]].append((clip, str(facts["label"])))
    return {part: tuple(clips) for part, clips in found.items()}


def folder(root: Path, kind: str, part: str) -> Path:
    """`<kind>`, where the clips of all splits lie in one folder, or `<kind>_<part>`."""
    return root / kind if (root / kind).is_dir() else root / f"{kind}_{part}"


def frames_of(form: str, size: int, count: int) -> Frames | PackedFrames:
    """The decoder of frames in a folder ("jpg") or in one file ("hdf5")."""
    choice("visual", form, ("jpg", "hdf5"))
    return Frames(size=size, count=count) if form == "jpg" else PackedFrames(size, count=count)


def frames_at(folder: Path, clip: str, form: str) -> Path:
    """Where the frames of a clip lie."""
    return folder / (clip if form == "jpg" else f"{clip}.hdf5")


def _is_short(source: Path, least: int) -> bool:
    """Whether there are frames, but too few; a damaged file is none of these: decoding tells it."""
    try:
        packs = source.suffix == ".hdf5"
        count = packed.count(source) if packs else len(media.frame_files(source))
    except Damaged:
        return False
    return 0 < count < least


def long_enough(
    entries: Mapping[str, Sequence[Entry]], least: int
) -> tuple[dict[str, list[Entry]], list[str]]:
    """The samples of which at least so many frames are there, and the ids of the others.

    Samples of no frames at all and of damaged files stay: those are counted elsewhere.
    """
    every = (entry for part in entries.values() for entry in part)
    short = {e.id for e in every if _is_short(e.sources["visual"], least)}
    kept = {name: [e for e in part if e.id not in short] for name, part in entries.items()}
    return kept, sorted(short)


@dataclass(frozen=True)
class Spectrogram(FileDecoder):
    """A ready log spectrogram in a file: (1, bins, frames). The source is its path.

    Too many frames are cut, too few filled with `silence`.

    :param bins: Frequencies: 257 of an STFT of 512.
    :param frames: 1,004 for the ten seconds of AVE.
    :param silence: The logarithm of nothing: log(1e-7).
    """

    bins: int = 257
    frames: int = 1004
    silence: float = math.log(1e-7)

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.bins, self.frames)

    def load(self, part: Path) -> Tensor:
        x = read_array(part)
        if x.ndim != 2 or len(x) != self.bins or x.shape[1] == 0:
            raise Damaged(
                f"`{part}` should hold a spectrogram of {self.bins} frequencies, of any length. "
                f"Found an array of {tuple(x.shape)}."
            )
        if not bool(x.isfinite().all()):
            raise Damaged(f"`{part}` should hold finite numbers. Found others.")
        lacking = max(0, self.frames - x.shape[1])
        return F.pad(x, (0, lacking), value=self.silence)[None, :, : self.frames]

    def remark(self, loaded: Tensor) -> str:
        return "silent" if bool((loaded == loaded.flatten()[0]).all()) else ""


def fake_frames(place: Path, number: int, frames: int, seed: int) -> None:
    """A folder of `frame_00001.jpg` and so on, or an hdf5 file of the same."""
    if place.suffix != ".hdf5":
        return fakes.write_frames(place, number, frames, name="frame_{:05d}.jpg", seed=seed)
    pictures = [fakes.picture(number, seed=seed * 1000 + i) for i in range(1, frames + 1)]
    return packed.write(place, pictures)


def fake_bank(path: Path, number: int, seed: int, dims: tuple[int, int] = (300, 128)) -> None:
    """An array in `.npy` of noise, whose columns are loud in a band of its own for each number."""
    import numpy

    bank = torch.randn(dims, generator=torch.Generator().manual_seed(seed)) / 4
    bank[:, 10 * number : 10 * number + 10] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    numpy.save(path, bank.numpy())


def fake_spectrogram(path: Path, number: int, seed: int) -> None:
    """An array of 257 x 1,004 in `.pkl` of noise with a loud band of its own for each number."""
    sound = torch.randn(257, 1004, generator=torch.Generator().manual_seed(seed)) / 4 - 8
    sound[9 * number : 9 * number + 9] += 4
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pickle(path, sound.half().numpy())
