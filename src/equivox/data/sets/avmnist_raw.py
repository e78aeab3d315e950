"""AV-MNIST from its parts: a written digit of MNIST and the same digit spoken.

Layout:

    mnist/train-images-idx3-ubyte …               the four idx files, plain or in gzip
    recordings/<digit>_<speaker>_<index>.wav      of the Free Spoken Digit Dataset: 3,000, 8 kHz

55,000 + 5,000 + 10,000 pairs; every twelfth training image is held out. Recordings are divided as
images are: by index (0 to 4 for test, as the collection has it; 5 to 9 for validation), or by
speaker. Within class and split they are dealt to the images evenly, in an order drawn by the seed:
no image and no recording is in two splits, but the pairs of one split share recordings.

`avmnist` is a small ready set with a spoiled version of either modality; this one is clean, and
easy. The form of MultiBench (TIDIGITS, three quarters of the energy removed) is not rebuilt: its
recordings are not free.

MNIST: CC BY-SA 3.0; recordings: CC BY-SA 4.0. Source: LeCun et al., Proceedings of the IEEE 1998;
Jackson et al., the Free Spoken Digit Dataset, 2018. Traps: speakers are few, and by index all of
them are in every split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from equivox.arguments import choice
from equivox.data import fakes, mnist, tables
from equivox.data.base import SPLITS
from equivox.data.decoders import FilterBank, LogSTFT
from equivox.data.field import Contents, Entry
from equivox.data.mnist import Digits, Pixels
from equivox.encoders import SmallCNN

CLASSES = mnist.CLASSES
HELD_OUT = 12

AUDIO = {
    "stft": LogSTFT(rate=8000, seconds=1.0, n_fft=256, hop=160),  # 129 x 51
    "fbank": FilterBank(rate=8000, frames=96, mels=32),
}

QUICK: dict[str, object] = {}


class Recording(NamedTuple):
    """One spoken digit."""

    path: Path
    digit: int
    speaker: str
    take: int


def read(root: Path, *, speech: str = "takes", audio: str = "stft", seed: int = 0) -> Contents:
    """Pairs of an image and a recording under `root`.

    :param speech: How recordings are divided: "takes", by index, or "speakers": of the sorted
        speakers the first is tested and the second validated on.
    :param audio: "stft" (129 x 51, short recordings repeated) or "fbank" (96 x 32, filled up).
    :param seed: What recordings are dealt by.
    """
    choice("speech", speech, ("takes", "speakers"))
    choice("audio", audio, tuple(AUDIO))
    files = mnist.read_mnist(root / "mnist")
    recordings = _by_split(_recordings(root / "recordings"), speech)
    draw = torch.Generator().manual_seed(seed)
    return Contents(
        entries={split: _paired(files, split, recordings[split], draw) for split in SPLITS},
        decoders={"image": Pixels(), "audio": AUDIO[audio]},
        architectures={"image": partial(SmallCNN, 1), "audio": partial(SmallCNN, 1)},
        classes=CLASSES,
    )


def _recordings(folder: Path) -> list[Recording]:
    found = []
    for path in sorted(folder.glob("*.wav")):
        digit, _, rest = path.stem.partition("_")
        speaker, _, index = rest.rpartition("_")
        if digit not in CLASSES or not speaker or not index.isdecimal():
            raise ValueError(
                "Recordings should be named `<digit>_<speaker>_<index>.wav`. Found "
                f"`{path.name}` in `{folder}`."
            )
        found.append(Recording(path, int(digit), speaker, int(index)))
    if not found:
        raise FileNotFoundError(
            f"`{folder}` should hold recordings `<digit>_<speaker>_<index>.wav`. Found "
            f"{tables.beside(folder / 'any')}."
        )
    return found


def _by_split(recordings: Sequence[Recording], speech: str) -> dict[str, list[Recording]]:
    speakers = sorted({recording.speaker for recording in recordings})
    if speech == "speakers" and len(speakers) < 3:
        raise ValueError(
            f"`speech=speakers` needs three speakers or more. Found {', '.join(speakers)}."
        )
    divided: dict[str, list[Recording]] = {split: [] for split in SPLITS}
    for recording in recordings:
        place = recording.take // 5 if speech == "takes" else speakers.index(recording.speaker)
        divided[{0: "test", 1: "validation"}.get(place, "train")].append(recording)
    return divided


def _paired(
    files: Mapping[str, Digits], split: str, recordings: Sequence[Recording], draw: torch.Generator
) -> list[Entry]:
    """Every image of a split with a recording of its digit."""
    part = "test" if split == "test" else "train"
    images, target = files[part]
    rows = {
        "train": [i for i in range(len(target)) if i % HELD_OUT],
        "validation": list(range(0, len(target), HELD_OUT)),
        "test": list(range(len(target))),
    }[split]
    decks = {digit: _shuffled(recordings, digit, draw) for digit in range(10)}
    dealt = [0] * 10
    found = []
    for row in rows:
        digit = int(target[row])
        if not decks[digit]:
            raise ValueError(
                f"Every digit should have recordings in every split. Found none of `{digit}` in "
                f"{split}. Copy them again, or divide them otherwise by `speech`."
            )
        recording = decks[digit][dealt[digit] % len(decks[digit])]
        dealt[digit] += 1
        sources = {"image": images[row], "audio": recording.path}
        found.append(Entry(f"{part}/{row:05d}", digit, sources))
    return found


def _shuffled(
    recordings: Sequence[Recording], digit: int, draw: torch.Generator
) -> list[Recording]:
    own = [recording for recording in recordings if recording.digit == digit]
    return [own[i] for i in torch.randperm(len(own), generator=draw).tolist()]


def fake(out: Path, seed: int = 0) -> None:
    """40 training and 10 test images; half a second of a tone from each of three speakers."""
    fakes.new_folder(out)
    mnist.write_fake(out / "mnist", 40, 10, seed)
    for digit in range(10):
        for place, speaker in enumerate(("ann", "ben", "cem")):
            for index in (0, 5, 10):
                path = out / "recordings" / f"{digit}_{speaker}_{index}.wav"
                drawn = seed + 1000 * digit + 100 * place + index
                fakes.write_tone(path, 200.0 * (digit + 1), seconds=0.5, rate=8000, seed=drawn)
