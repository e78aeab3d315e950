"""UCF-101: 13,320 clips of 101 actions, as frames and as optical flow.

Layout:

    classInd.txt                        lines `1 ApplyEyeMakeup`
    trainlist01.txt                     lines `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`
    testlist01.txt                      the same without the number; three folds
    visual/<clip>/frame_00001.jpg …     frames, about six
    flow_u/<clip>/frame000001.jpg …     horizontal and
    flow_v/<clip>/frame000001.jpg …     vertical optical flow (TV-L1), as many of both

Clips of one group (`g08`) show the same people and place. The lists divide by group; for validation
every ninth group of the training list is held out, in order of numbers: two of 18. Classes are
those of `classInd.txt`, by its numbers from 1 on.

In training a clip is flipped as a whole: frames and both flows, and the horizontal flow, which then
points the other way, changes its sign.

Research use. Source: Soomro, Zamir & Shah, CRCV-TR-12-01. Traps: the clips of `HandstandPushups`
are called `v_HandStandPushups…`, and the folders of published frames and flows either way (both are
found); a reference loader flips frames, u and v independently of one another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, held_out, tables
from equivox.data.decoders import Frames
from equivox.data.decoders.flow import Flow
from equivox.data.field import Contents, Entry

HELD_OUT = 9
"""Of so many groups of the training list, the first is held out."""

QUICK = {"size": 32, "encoder": "small"}

CLIP = re.compile(r"(?P<label>\w+)/(?P<name>v_\w+_g\d+_c\d+)\.avi(\s+(?P<number>\d+))?")


def read(
    root: Path,
    *,
    fold: int = 1,
    frames: int = 3,
    flows: int = 3,
    stack: int = 1,
    crop: bool = False,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """UCF-101 under `root`.

    :param fold: Which of the three lists.
    :param frames: How many frames are taken of a clip.
    :param flows: At how many moments flow is taken.
    :param stack: How many fields at each, as channels; `flows=1, stack=10` is the usual other form.
    :param crop: Whether training takes a random part of frames and flow, the same of both.
    :param size: Side of a frame.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("fold", fold, (1, 2, 3))
    for name, value in (("frames", frames), ("flows", flows), ("stack", stack)):
        number(name, value, least=1)
    rgb, flow = (architectures.of_frames(encoder, channels) for channels in (3, 2 * stack))
    classes = _classes(root / "classInd.txt")
    train, test = (
        _entries(root, f"{part}list{fold:02d}.txt", classes) for part in ("train", "test")
    )
    return Contents(
        entries={**held_out.by_group(train, _group, HELD_OUT), "test": test},
        decoders={
            "rgb": Frames(size=size, count=frames, crop=crop),
            "flow": Flow(size=size, count=flows, crop=crop, stack=stack),
        },
        architectures={"rgb": rgb, "flow": flow},
        classes=classes,
    )


def _classes(path: Path) -> tuple[str, ...]:
    found = [line.split() for line in tables.lines(path)]
    for i, fields in enumerate(found, start=1):
        if len(fields) != 2 or fields[0] != str(i):
            raise ValueError(
                f"Line {i} of `{path}` should be `{i} <class>`. Found `{' '.join(fields)}`."
            )
    return tuple(name for _, name in found)


def _group(entry: Entry) -> str:
    """`08` of `v_ApplyEyeMakeup_g08_c01`."""
    return entry.id.rpartition("_c")[0].rpartition("_g")[2]


def _entries(root: Path, name: str, classes: Sequence[str]) -> list[Entry]:
    path, found = root / name, []
    for line in tables.lines(path):
        read = CLIP.fullmatch(line)
        if read is None:
            raise ValueError(
                f"Lines of `{path}` should be `<class>/v_<class>_g<group>_c<clip>.avi`, with or "
                f"without a number. Found `{line}`."
            )
        target = tables.class_number(read["label"], classes, f"`{path.name}`, `{line}`")
        if read["number"] not in (None, str(target + 1)):
            raise ValueError(
                f"`{path.name}` and `classInd.txt` should number classes alike. Found `{line}`, "
                f"and {target + 1} for `{read['label']}`."
            )
        rgb, u, v = (_folder(root / kind, read["name"]) for kind in ("visual", "flow_u", "flow_v"))
        found.append(Entry(read["name"], target, {"rgb": rgb, "flow": (u, v)}))
    return found


def _folder(parent: Path, name: str) -> Path:
    other = parent / name.replace("v_HandStand", "v_Handstand")
    return other if other.is_dir() else parent / name


def fake(out: Path, seed: int = 0) -> None:
    """2 test, 2 validation and 4 training clips of 2 classes, in groups 1 and 8 to 10."""
    fakes.new_folder(out)
    names = ("ApplyEyeMakeup", "HandstandPushups")
    numbered = "".join(f"{i} {name}\n" for i, name in enumerate(names, start=1))
    (out / "classInd.txt").write_text(numbered, encoding="utf-8")
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for place, name in enumerate(names):
        for group in (1, 8, 9, 10):
            clip = f"v_{name.replace('Handstand', 'HandStand')}_g{group:02d}_c01"
            line = f"{name}/{clip}.avi"
            lists["test" if group == 1 else "train"] += [
                line if group == 1 else f"{line} {place + 1}"
            ]
            drawn = seed + 100 * place + group
            fakes.write_frames(out / "visual" / clip, place, 6, "frame_{:05d}.jpg", seed=drawn)
            for i, side in enumerate(("flow_u", "flow_v")):
                where = out / side / clip.replace("HandStand", "Handstand")
                number = 3 * place + i + 1
                fakes.write_frames(where, number, 5, "frame{:06d}.jpg", seed=50 + drawn, gray=True)
    for part, lines in lists.items():
        (out / f"{part}list01.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
