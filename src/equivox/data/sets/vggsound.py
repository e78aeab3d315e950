"""VGGSound: ten-second clips in which the source of one of 309 sounds is seen.

Frames and sound. Layout:

    vggsound.csv                        rows `youtube_id,start,label,split`, without a header
    video_{train,test}/<clip>/*.jpg     frames, one a second, in the order of their numbers
    audio_{train,test}/<clip>.wav       or `<clip>.npy`, a filter bank of 1,024 frames of 128

A clip is `<youtube_id>_<start>`; where files carry six digits, as `<id>_000030`, say `digits=6`.
With `layout="original"` frames lie in `Image-01-FPS/<clip>.mp4/` and sounds in `audio/`; one
folder `video` or `audio` for both splits is read too. Classes are the sorted labels of the list.
It has no validation split: every tenth training video of each class, in order of names, is held
out. Clips of three frames or fewer are left out; of those of no frames at all the files are
missing.

Annotations CC BY 4.0, clips belong to their owners. Source: Chen et al., ICASSP 2020. Traps: every
year fewer of the 199,176 clips can be downloaded, so that papers train on 152,638 or 168,618: say
`tolerance` for yours, and report the counts; labels contain commas; a reference loader draws random
frames and then reads the first ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, tables
from equivox.data.clips import fake_frames, folder, long_enough
from equivox.data.decoders import Array, Frames, LogSTFT
from equivox.data.field import Contents, Entry

AUDIO = {
    "wav": LogSTFT(
        rate=16_000, seconds=5.0, least=10.0, n_fft=256, hop=128, moment="random"
    ),  # 129 x 626
    "npy": Array((1024, 128), channel=True),
}

HELD_OUT = 10
"""Of so many training videos of a class, the first is held out."""

QUICK = {"size": 32, "encoder": "small"}


def read(
    root: Path,
    *,
    audio: str = "wav",
    layout: str = "split",
    digits: int = 0,
    fps: int = 1,
    frames: int = 3,
    least: int = 4,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """VGGSound under `root`.

    :param audio: "wav", of which any five seconds are taken in training and the middle ones
        elsewhere, or "npy".
    :param layout: "split", or "original", see above.
    :param digits: To so many digits the start is filled with zeros in file names.
    :param fps: With "original", which folder of frames.
    :param frames: How many are taken of a clip.
    :param least: Clips of fewer frames are left out.
    :param size: Side of a frame.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("audio", audio, tuple(AUDIO))
    choice("layout", layout, ("split", "original"))
    encoders = architectures.of_clip(encoder)
    number("digits", digits, least=0, most=9)
    number("fps", fps, least=1, most=99)
    number("frames", frames, least=1)
    number("least", least, least=1)
    rows = _rows(root / "vggsound.csv")
    classes = tuple(sorted({label for _, _, label, _ in rows}))
    found: dict[str, list[Entry]] = {"train": [], "validation": [], "test": []}
    validated = _held_out(rows)
    for video, start, label, part in rows:
        clip = f"{video}_{start.zfill(digits)}"
        ours = "validation" if part == "train" and video in validated else part
        if layout == "original":
            visual, sounds = root / f"Image-{fps:02d}-FPS" / f"{clip}.mp4", root / "audio"
        else:
            visual, sounds = folder(root, "video", part) / clip, folder(root, "audio", part)
        sources = {"audio": sounds / f"{clip}.{audio}", "visual": visual}
        found[ours].append(Entry(clip, classes.index(label), sources))
    entries, short = long_enough(found, least)
    return Contents(
        entries=entries,
        decoders={"audio": AUDIO[audio], "visual": Frames(size=size, count=frames)},
        architectures=encoders,
        classes=classes,
        left_out={f"fewer than {least} frames": short},
    )


Rows = Sequence[Sequence[str]]


def _rows(path: Path) -> Rows:
    rows = tables.rows(path, fields=4, separator=",")
    for row in rows:
        if not row[1].isdecimal() or not row[2] or row[3] not in ("train", "test"):
            raise ValueError(
                f"Rows of `{path}` should be `youtube_id,start,label,split`, with whole seconds "
                f"and `train` or `test`. Found {row}."
            )
    return rows


def _held_out(rows: Rows) -> set[str]:
    """Videos for validation: with one go all its clips."""
    by_class: dict[str, set[str]] = {}
    for video, _, label, part in rows:
        if part == "train":
            by_class.setdefault(label, set()).add(video)
    return {video for videos in by_class.values() for video in sorted(videos)[::HELD_OUT]}


def fake(out: Path, seed: int = 0) -> None:
    """4 training and 2 test clips of 3 classes, with sounds of a second, one too short."""
    fakes.new_folder(out)
    rows = []
    for part, count in (("train", 4), ("test", 2)):
        for place, label in enumerate(("playing bassoon", "people sneezing", "dog, howling")):
            for i in range(count):
                video, start = f"-{part[:2]}{place}_{i}", 10 * i
                drawn = seed + 100 * place + 10 * i + (part == "test")
                clip = f"{video}_{start}"
                frames = 3 if (part, place, i) == ("train", 1, 2) else 5
                fake_frames(out / f"video_{part}" / clip, place, frames, drawn)
                pitch = 300.0 * (place + 1)
                fakes.write_tone(out / f"audio_{part}" / f"{clip}.wav", pitch, seed=drawn)
                rows.append((video, start, label, part))
    tables.written(out / "vggsound.csv", rows)
