"""BalancedAV: about 35,000 clips of 30 classes, chosen so that neither sound nor picture leads.

Layout, in which MM-Debiased (14,025 clips of 10 classes) can be read too:

    *.json                      one list: {"labels": […], "database": {<clip>: {"subset": training
                                | validation | testing, "label": …}}}, or that database alone
    visual/<clip>/*.jpg         frames, in the order of their numbers; or `<clip>.hdf5`, encoded
                                pictures in the dataset `video`, which is how they are distributed
    audio/<clip>.pkl            a log spectrogram, 257 x 1,004; or `<clip>.npy`, a filter bank of
                                1,024 frames of 128, or `<clip>.wav`

Classes are the sorted labels of the list. All three splits are published.

Research use; the clips come from VGGSound and Kinetics and belong to their owners. Traps: a
reference loader never switches augmentation on, since it asks for `training` in one place and for
`train` in another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, tables
from equivox.data.clips import (
    Clips,
    Spectrogram,
    by_subset,
    fake_frames,
    fake_spectrogram,
    frames_at,
    frames_of,
)
from equivox.data.decoders import Array, FilterBank
from equivox.data.field import Contents, Entry

AUDIO = {
    "pkl": Spectrogram(bins=257, frames=1004),
    "npy": Array((1024, 128), channel=True),
    "wav": FilterBank(rate=16_000, frames=1024, mels=128, mean=-4.503877, std=5.141276),
}

QUICK = {"size": 32, "encoder": "small"}


def read(
    root: Path,
    *,
    lists: str | None = None,
    audio: str = "pkl",
    visual: str = "jpg",
    frames: int = 3,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """BalancedAV under `root`.

    :param lists: The name of the list, where there are several `.json` files.
    :param audio: "pkl", ready spectrograms; "npy", ready filter banks; "wav", sounds, of which
        filter banks are made.
    :param visual: "jpg", folders of frames, or "hdf5", one file a clip.
    :param frames: How many are taken of a clip.
    :param size: Side of a frame.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("audio", audio, tuple(AUDIO))
    encoders = architectures.of_clip(encoder)
    number("frames", frames, least=1)
    say = "Say which by `lists`."
    path = root / lists if lists else tables.single(root, "*.json", say)
    clips = by_subset(path)
    classes = _classes(path, clips)
    return Contents(
        entries={
            part: [
                Entry(
                    clip,
                    tables.class_number(label, classes, f"`{path.name}`, clip `{clip}`"),
                    {
                        "audio": root / "audio" / f"{clip}.{audio}",
                        "visual": frames_at(root / "visual", clip, visual),
                    },
                )
                for clip, label in listed
            ]
            for part, listed in clips.items()
        },
        decoders={"audio": AUDIO[audio], "visual": frames_of(visual, size, frames)},
        architectures=encoders,
        classes=classes,
    )


def _classes(path: Path, clips: Mapping[str, Clips]) -> tuple[str, ...]:
    """The sorted "labels" of the list; where it has none, those of its clips."""
    content = tables.read_json(path)
    if "labels" not in content:
        return tuple(sorted({label for part in clips.values() for _, label in part}))
    labels = content["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"The `labels` of `{path}` should be a list of names. Found {labels!r}.")
    return tuple(sorted(set(labels)))


def fake(out: Path, seed: int = 0, visual: str = "jpg") -> None:
    """6 training, 3 validation and 3 test clips of 3 classes, with spectrograms."""
    fakes.new_folder(out)
    labels = ("typing", "bowling", "playing flute")  # not in order, as labels may be
    database = {}
    for subset, count in (("training", 6), ("validation", 3), ("testing", 3)):
        for i in range(count):
            clip, place, drawn = f"{subset}_{i}_000030", i % 3, seed + 10 * i + len(subset)
            fake_frames(frames_at(out / "visual", clip, visual), place, 3, drawn)
            fake_spectrogram(out / "audio" / f"{clip}.pkl", place, drawn)
            database[clip] = {"subset": subset, "label": labels[place]}
    content = {"labels": labels, "database": database}
    (out / "balanced_av.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
