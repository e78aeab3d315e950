"""Kinetics-Sounds: ten-second clips of 31 actions that are both seen and heard.

Frames and sound. Layout, with the clips of both lists apart or, without `_train` and `_test`, in
one folder:

    my_train.txt my_test.txt            rows `<clip>,10,<class>` or `<clip> <class>`
    KS_train_val.json                   instead, with `lists="json"`: {"database": {<clip>:
                                        {"subset": training | validation | testing, "label": …}}}
    visual_{train,test}/<clip>/frame_00001.jpg …        one a second, about ten; or `<clip>.hdf5`
    audio_{train,test}/<clip>.npy       a filter bank of 1,024 frames of 128; or `<clip>.wav`; or
                                        `<clip>.pkl`, a log spectrogram, 257 x 1,004

A class is a name, or its number in the order of the sorted names, from 0. `my_train.txt` has no
validation split: every tenth clip of each class, in order of names, is held out. The JSON list has
one, in `visual_validation`. Clips of three frames or fewer are left out, as is usual; of those of
no frames at all the files are missing. A `<clip>.hdf5` holds the frames as encoded pictures in the
dataset `video`: with the JSON list and `<clip>.pkl`, the form of BML.

Annotations CC BY 4.0, clips belong to their owners. Source: Arandjelovic & Zisserman, Look, Listen
and Learn, ICCV 2017, on the clips of Kinetics. Traps: papers count 31, 32 or 34 classes; a
reference loader never looks at frame ten and later; published filter banks are normalised or not,
depending on who made them.
"""

from __future__ import annotations

import re
from pathlib import Path

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, held_out, tables
from equivox.data.clips import (
    Clips,
    Spectrogram,
    by_subset,
    fake_bank,
    fake_frames,
    folder,
    frames_at,
    frames_of,
    long_enough,
)
from equivox.data.decoders import Array, FilterBank
from equivox.data.field import Contents, Entry

NAMES = """
blowing_nose blowing_out_candles bowling chopping_wood dribbling_basketball laughing
mowing_lawn playing_accordion playing_bagpipes playing_bass_guitar playing_clarinet
playing_drums playing_guitar playing_harmonica playing_keyboard playing_organ playing_piano
playing_saxophone playing_trombone playing_trumpet playing_violin playing_xylophone
ripping_paper shoveling_snow shuffling_cards singing stomping_grapes tap_dancing
tapping_guitar tapping_pen tickling
"""

CLASSES = tuple(NAMES.split())

MEAN, STD = -4.503877, 5.141276

AUDIO = {
    "npy": Array((1024, 128), channel=True),
    "npy_raw": Array((1024, 128), mean=MEAN, std=2 * STD, channel=True),
    "wav": FilterBank(rate=16_000, frames=1024, mels=128, mean=MEAN, std=STD),
    "pkl": Spectrogram(bins=257, frames=1004),
}
"""A normalised filter bank, one that is not, the sound itself, and a ready spectrogram."""

QUICK = {"size": 32, "encoder": "small"}


def read(
    root: Path,
    *,
    lists: str = "txt",
    audio: str = "npy",
    visual: str = "jpg",
    frames: int = 3,
    least: int = 4,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """Kinetics-Sounds under `root`.

    :param lists: "txt", or "json" for `KS_train_val.json`.
    :param audio: "npy", normalised filter banks; "npy_raw", those that are not normalised yet;
        "wav", sounds; "pkl", log spectrograms.
    :param visual: "jpg", folders of frames, or "hdf5", one file a clip.
    :param frames: How many are taken of a clip.
    :param least: Clips of fewer frames are left out.
    :param size: Side of a frame.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("lists", lists, ("txt", "json"))
    choice("audio", audio, tuple(AUDIO))
    encoders = architectures.of_clip(encoder)
    number("frames", frames, least=1)
    number("least", least, least=1)
    seen = frames_of(visual, size, frames)
    if lists == "json":
        listed = by_subset(root / "KS_train_val.json")
    else:
        listed = {part: _clips(root / f"my_{part}.txt") for part in ("train", "test")}
    found = {part: _entries(root, part, each, audio, visual) for part, each in listed.items()}
    if lists == "txt":
        found = {**held_out.by_class(found["train"]), "test": found["test"]}
    entries, short = long_enough(found, least)
    return Contents(
        entries=entries,
        decoders={"audio": AUDIO[audio], "visual": seen},
        architectures=encoders,
        classes=CLASSES,
        left_out={f"fewer than {least} frames": short},
    )


def _clips(path: Path) -> Clips:
    """The first and the last field of each line of a list."""
    found = []
    for line in tables.lines(path):
        fields = [field.strip() for field in re.split("," if "," in line else r"\s+", line)]
        if len(fields) < 2 or not all(fields):
            raise ValueError(
                f"Lines of `{path}` should be `<clip>,10,<class>` or `<clip> <class>`. Found "
                f"`{line}`."
            )
        found.append((fields[0].removesuffix(".mp4"), fields[-1]))
    return found


def _entries(root: Path, part: str, listed: Clips, audio: str, visual: str) -> list[Entry]:
    pictures, sounds = folder(root, "visual", part), folder(root, "audio", part)
    ending = audio.removesuffix("_raw")
    return [
        Entry(
            clip,
            _number(label, f"the {part} list, clip `{clip}`"),
            {
                "audio": sounds / f"{clip}.{ending}",
                "visual": frames_at(pictures, clip, visual),
            },
        )
        for clip, label in listed
    ]


def _number(label: str, where: str) -> int:
    if label.isdecimal() and int(label) < len(CLASSES):
        return int(label)
    return tables.class_number(label.replace(" ", "_"), CLASSES, where)


def fake(out: Path, seed: int = 0, visual: str = "jpg") -> None:
    """4 training and 2 test clips of 3 classes, and one that is too short."""
    fakes.new_folder(out)
    for part, count in (("train", 4), ("test", 2)):
        lines = []
        for place, name in enumerate(("bowling", "playing_organ", "tickling")):
            for i in range(count):
                clip = f"{name[:4]}{part}-{i}_000010_000020"
                frames = 3 if (part, place, i) == ("train", 0, 3) else 5
                drawn = seed + 100 * place + 10 * i + (part == "test")
                where = frames_at(out / f"visual_{part}", clip, visual)
                fake_frames(where, place, frames, drawn)
                fake_bank(out / f"audio_{part}" / f"{clip}.npy", place, drawn)
                lines.append(f"{clip},10,{name}\n")
        (out / f"my_{part}.txt").write_text("".join(lines), encoding="utf-8")
