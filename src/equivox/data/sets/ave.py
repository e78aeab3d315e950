"""AVE: 4,143 ten-second clips in which one of 28 events is both seen and heard.

Frames and sound of the event's seconds alone. Layout:

    trainSet.txt valSet.txt testSet.txt     rows `Event&youtube_id&quality&start&end`:
                                            3,339 + 402 + 402
    Audio-1004-SE/<id>.pkl                  a log spectrogram, 257 x 1,004; or `Audio-SE/<id>.wav`
    Image-01-FPS-SE/<id>/*.jpg              frames, here one a second; `Image-{fps:02d}-FPS-SE`

`SE` stands for from start to end. Some videos are listed twice, with two events, and have one
file: one row of each is kept, the first (`repeated="first"`, as in PMR) or the last (as in OGM-GE's
code); of rows in several splits that of the test split, then that of validation, so that no video
is in two splits. The features for localisation (h5) are not read.

Research use; labels of AudioSet, CC BY 4.0; clips belong to their owners. Source: Tian et al., ECCV
2018. Traps: reference loaders number the classes in the order in which they occur; a video that is
listed twice counts once or twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, tables
from equivox.data.clips import Spectrogram, fake_spectrogram
from equivox.data.decoders import Frames, LogSTFT
from equivox.data.field import Contents, Entry

CLASSES = (
    "Accordion",
    "Acoustic guitar",
    "Baby cry, infant cry",
    "Banjo",
    "Bark",
    "Bus",
    "Cat",
    "Chainsaw",
    "Church bell",
    "Clock",
    "Female speech, woman speaking",
    "Fixed-wing aircraft, airplane",
    "Flute",
    "Frying (food)",
    "Goat",
    "Helicopter",
    "Horse",
    "Male speech, man speaking",
    "Mandolin",
    "Motorcycle",
    "Race car, auto racing",
    "Rodents, rats, mice",
    "Shofar",
    "Toilet flush",
    "Train horn",
    "Truck",
    "Ukulele",
    "Violin, fiddle",
)

LISTS = {"test": "testSet.txt", "validation": "valSet.txt", "train": "trainSet.txt"}
"""In the order in which they claim a video that is in several."""

AUDIO = {
    "pkl": Spectrogram(bins=257, frames=1004),
    "wav": LogSTFT(rate=35_400, seconds=10.0, n_fft=512, hop=353),  # 257 x 1,003, as AMSS
}

QUICK = {"size": 32, "encoder": "small"}


def read(
    root: Path,
    *,
    audio: str = "pkl",
    repeated: str = "first",
    fps: int = 1,
    frames: int = 3,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """AVE under `root`.

    :param audio: "pkl", ready spectrograms, or "wav", sounds that are repeated to ten seconds.
    :param repeated: Which row of a video that is listed twice is kept: "first" or "last".
    :param fps: Which folder of frames.
    :param frames: How many are taken of a clip: 3 or 4.
    :param size: Side of a frame.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("audio", audio, tuple(AUDIO))
    choice("repeated", repeated, ("first", "last"))
    encoders = architectures.of_clip(encoder)
    number("fps", fps, least=1, most=99)
    number("frames", frames, least=1)
    kept, dropped = _kept({part: _rows(root / name) for part, name in LISTS.items()}, repeated)
    sounds = root / ("Audio-1004-SE" if audio == "pkl" else "Audio-SE")
    visual = root / f"Image-{fps:02d}-FPS-SE"
    return Contents(
        entries={
            part: [
                Entry(
                    row[1],
                    tables.class_number(row[0], CLASSES, f"`{LISTS[part]}`, video `{row[1]}`"),
                    {"audio": sounds / f"{row[1]}.{audio}", "visual": visual / row[1]},
                )
                for row in kept[part]
            ]
            for part in ("train", "validation", "test")
        },
        decoders={"audio": AUDIO[audio], "visual": Frames(size=size, count=frames)},
        architectures=encoders,
        classes=CLASSES,
        left_out={"another event of a video that is listed already": dropped},
    )


Rows = Sequence[Sequence[str]]


def _rows(path: Path) -> Rows:
    """The rows of a list, without the header that `Annotations.txt` has."""
    rows = tables.rows(path, fields=5, separator="&")
    return rows[1:] if rows[0][:2] == ["Category", "VideoID"] else rows


def _kept(lists: Mapping[str, Rows], repeated: str) -> tuple[dict[str, Rows], list[str]]:
    """One row of each video, in the lists' order, and `<split>/<id>/<event>` of the others."""
    kept: dict[str, Rows] = {}
    dropped: list[str] = []
    seen: set[str] = set()
    for part, rows in lists.items():
        taken = dict[str, Sequence[str]]()
        for row in rows if repeated == "first" else reversed(rows):
            if row[1] in seen or row[1] in taken:
                dropped.append(f"{part}/{row[1]}/{row[0]}")
            else:
                taken[row[1]] = row
        seen |= set(taken)
        kept[part] = list(taken.values()) if repeated == "first" else list(taken.values())[::-1]
    return kept, sorted(dropped)


def fake(out: Path, seed: int = 0) -> None:
    """6 training, 3 validation and 3 test clips of 3 events; one video is listed twice."""
    fakes.new_folder(out)
    for part, count in (("train", 6), ("val", 3), ("test", 3)):
        rows = []
        for i in range(count):
            place, video = (3, 8, 26)[i % 3], f"{part}_{i}"
            rows.append((CLASSES[place], video, "good", 0, 5 + i))
            drawn = seed + 10 * i + len(part)
            fakes.write_frames(out / "Image-01-FPS-SE" / video, place, 5, seed=drawn)
            fake_spectrogram(out / "Audio-1004-SE" / f"{video}.pkl", place, drawn)
        rows += [(CLASSES[1], "train_0", "good", 6, 10)] if part == "train" else []
        text = "".join("&".join(map(str, row)) + "\n" for row in rows)
        (out / f"{part}Set.txt").write_text(text, encoding="utf-8")
