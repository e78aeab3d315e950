"""NVGesture: 1,532 clips of 25 hand gestures in a car, in colour and in depth.

Layout:

    nvgesture_train_correct_v2.lst      or another `nvgesture_train_correct*.lst`, and the same for
                                        test; lines `path:./Video_data/class_01/subject13_r0
                                        color:sk_color:70:150 depth:sk_depth:70:150 label:1 …`
    Video_data/class_01/subject13_r0/sk_color/00001.jpg …
    Video_data/class_01/subject13_r0/sk_depth/00001.jpg …

The frames are those of `sk_color.avi` and `sk_depth.avi`, all of them, numbered from 1: unpack each
once, for example by `ffmpeg -i sk_color.avi -q:v 2 sk_color/%05d.jpg`. The list says in which of
them, counted from 0, the gesture begins and ends: 80 frames. Labels count from 1; classes are
called as the folders, `class_01` to `class_25`. Videos themselves, the second camera (`duo_left`)
and optical flow are not read.

1,050 clips are for training and 482 for testing, by other people. For validation every seventh
subject of the training list is held out, in order of names.

CC BY-NC-SA 4.0. Source: Molchanov et al., CVPR 2016. Traps: a gesture must not be mirrored, since
left and right are different classes; both sensors must be cut alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.arguments import number
from equivox.data import architectures, fakes, held_out, tables
from equivox.data.decoders import Frames
from equivox.data.field import Contents, Draw, Entry, Load

CLASSES = tuple(f"class_{i:02d}" for i in range(1, 26))

SENSORS = ("color", "depth")

HELD_OUT = 7
"""Of so many subjects of the training list, the first is held out."""

SHARE = 7 / 8
"""Of the shorter side of a frame is seen: 224 of 256 pixels."""

QUICK = {"size": 32, "frames": 4, "encoder": "small"}


@dataclass(frozen=True)
class Window(Frames):
    """Frames that follow one another: (channels, count, size, size). The source lists the files.

    In training a random run of frames and a random square of them are taken, elsewhere the middle
    ones; nothing is mirrored. Modalities of one stream are cut alike. Of fewer frames than are
    wanted, some are taken several times.
    """

    crop: bool = False
    flip: bool = False

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        room = max(0, len(source) - self.count)
        start = room // 2
        if draw is not None:
            start = int(torch.randint(room + 1, (), generator=draw.generator("moment")))
        return super().finish(source[start : start + self.count], draw, load)

    def view(self, images: Tensor, draw: Draw | None) -> Tensor:
        """A square of all images alike, `SHARE` of the shorter side wide."""
        height, width = images.shape[-2:]
        side = max(1, round(min(height, width) * SHARE))
        down, right = 0.5, 0.5
        if draw is not None:
            down, right = torch.rand(2, generator=draw.generator(self.stream)).tolist()
        top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
        return super().view(images[..., top : top + side, left : left + side], None)


def read(
    root: Path,
    *,
    frames: int = 64,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """NVGesture under `root`.

    :param frames: How many, one after the other, are taken of a gesture's 80.
    :param size: Side of a frame.
    :param encoder: "resnet18" or "small", of each frame; features are averaged over time.
    """
    encoders = {
        "color": architectures.of_frames(encoder, 3),
        "depth": architectures.of_frames(encoder, 1),
    }
    number("frames", frames, least=1)
    train, test = (_entries(root, part) for part in ("train", "test"))
    return Contents(
        entries={**held_out.by_group(train, _subject, HELD_OUT), "test": test},
        decoders={
            "color": Window(size=size, count=frames),
            "depth": Window(size=size, count=frames, channels=1),
        },
        architectures=encoders,
        classes=CLASSES,
    )


def _subject(entry: Entry) -> str:
    """Who is seen: `subject13` of `…/subject13_r0`."""
    return Path(entry.id).name.partition("_")[0]


def _entries(root: Path, part: str) -> list[Entry]:
    path = tables.single(root, f"nvgesture_{part}_correct*.lst", "Move the others away.")
    return [_entry(root, line, path) for line in tables.lines(path)]


def _entry(root: Path, line: str, path: Path) -> Entry:
    fields = {key: rest for key, _, rest in (field.partition(":") for field in line.split())}
    spans = {s: re.fullmatch(r"(\w+):(\d+):(\d+)", fields.get(s, "")) for s in SENSORS}
    found = {s: (m[1], int(m[2]), int(m[3])) for s, m in spans.items() if m is not None}
    label = fields.get("label", "")
    whole = fields.get("path") and label.isdecimal() and len(found) == len(SENSORS)
    if not whole or any(start >= end for _, start, end in found.values()):
        raise ValueError(
            f"Lines of `{path}` should have `path:<folder>`, `color:<name>:<start>:<end>`, `depth:"
            f"<name>:<start>:<end>` and `label:<number>`. Found `{line}`."
        )
    target = tables.class_number(f"class_{int(label):02d}", CLASSES, f"`{path.name}`, `{line}`")
    folder = Path(fields["path"])
    sources = {
        sensor: [root / folder / name / f"{i + 1:05d}.jpg" for i in range(start, end)]
        for sensor, (name, start, end) in found.items()
    }
    return Entry(folder.as_posix(), target, sources)


def fake(out: Path, seed: int = 0) -> None:
    """2 test, 2 validation and 4 training clips of 2 gestures, of 8 frames each."""
    fakes.new_folder(out)
    people: dict[str, Sequence[int]] = {"train": (1, 2, 3), "test": (4,)}
    for part, subjects in people.items():
        lines = []
        for subject in subjects:
            for place in (0, 4):
                path = f"Video_data/{CLASSES[place]}/subject{subject}_r0"
                for sensor in SENSORS:
                    where, drawn = out / path / f"sk_{sensor}", seed + 10 * subject + place
                    gray = sensor == "depth"
                    fakes.write_frames(where, place + 1, 10, size=(24, 32), seed=drawn, gray=gray)
                spans = " ".join(f"{sensor}:sk_{sensor}:2:10" for sensor in SENSORS)
                lines.append(f"path:./{path} duo_left:duo_left:2:10 {spans} label:{place + 1}\n")
        (out / f"nvgesture_{part}_correct_v2.lst").write_text("".join(lines), encoding="utf-8")
