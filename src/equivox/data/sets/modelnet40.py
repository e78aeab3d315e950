"""ModelNet40 views: 12,311 objects of 40 kinds, seen from the front and from the rear.

Layout, with `layout="shaded"`, the twelve views of MVCNN, of which 1 and 7 are taken:

    <class>/{train,test}/<object>.obj.shaded_v001.png … _v012.png       one every 30 degrees

and with `layout="degrees"`, the views of ReconBoost:

    image/<class>/<object>/<object>.<degree>.png                        0 to 179
    pt/ply_data_{train,test}*id2file.json           lists ["<class>/<object>.ply", …]

where the first view is one of degrees 0 to 89 and the second one of 90 to 179: any in training, the
middle one elsewhere. The labels in `ply_data_*.h5` are those of the names and are not read.

9,843 objects are for training and 2,468 for testing; for validation every fifth training object of
each class is held out, in order of names. Both views are flipped together.

Research use. Source: Wu et al., CVPR 2015; views: Su et al., ICCV 2015. Traps: with `layout=shaded`
no list says which objects there should be: compare the counts of a check with those above; views
packed into `<object>.obj.npy` are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, held_out, media, tables
from equivox.data.decoders import Image
from equivox.data.field import Contents, Draw, Entry, Load

NAMES = """
airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser
flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant
radio range_hood sink sofa stairs stool table tent toilet tv_stand vase wardrobe xbox
"""

CLASSES = tuple(NAMES.split())

HELD_OUT = 5
"""Of so many training objects of a class, the first is held out."""

VIEWS = 12

SHADED = re.compile(r"(?P<name>.+)\.obj\.shaded_v(?P<view>\d{3})\.png")

QUICK = {"size": 32, "encoder": "small"}


@dataclass(frozen=True)
class AnyOf(Image):
    """One of several images: any in training, the middle one elsewhere. The source lists them.

    :param moment: What the choice is drawn from, see `Draw.generator`.
    """

    moment: str = "moment"

    def parts(self, source: Any) -> Sequence[Path]:
        return list(source)

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        drawn = None if draw is None else draw.generator(self.moment)
        (chosen,) = media.segments(len(source), 1, drawn)
        return self.view(load(source[chosen]), draw)


def read(
    root: Path,
    *,
    layout: str = "shaded",
    front: int = 1,
    rear: int = 7,
    crop: bool = False,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """ModelNet40 under `root`.

    :param layout: "shaded" or "degrees", see above.
    :param front: With "shaded", which view, 1 to 12; `rear` likewise.
    :param crop: Whether training takes a random part of an image.
    :param size: Side of an image.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("layout", layout, ("shaded", "degrees"))
    image = architectures.of_image(encoder)
    number("front", front, least=1, most=VIEWS)
    number("rear", rear, least=1, most=VIEWS)
    if layout == "shaded":
        train, test = (list(_shaded(root, part, front, rear)) for part in ("train", "test"))
    else:
        train, test = (list(_turned(root, part)) for part in ("train", "test"))
    return Contents(
        entries={**held_out.by_class(train, HELD_OUT), "test": test},
        decoders={
            name: AnyOf(size=size, crop=crop, moment=name)
            if layout == "degrees"
            else Image(size=size, crop=crop)
            for name in ("front", "rear")
        },
        architectures={"front": image, "rear": image},
        classes=CLASSES,
    )


def _shaded(root: Path, part: str, front: int, rear: int) -> Iterator[Entry]:
    """The objects of which any view is there, class by class."""
    folders = sorted(path for path in root.iterdir() if (path / part).is_dir())
    if not folders:
        raise FileNotFoundError(
            f"`{root}` should hold folders `<class>/{part}`. Found {tables.beside(root / part)}."
        )
    for folder in folders:
        target = tables.class_number(folder.name, CLASSES, f"`{root}`")
        found = (SHADED.fullmatch(path.name) for path in (folder / part).iterdir())
        for name in sorted({match["name"] for match in found if match is not None}):
            front_, rear_ = (
                folder / part / f"{name}.obj.shaded_v{view:03d}.png" for view in (front, rear)
            )
            yield Entry(f"{part}/{name}", target, {"front": front_, "rear": rear_})


def _turned(root: Path, part: str) -> Iterator[Entry]:
    """The objects of the lists, in order of names."""
    pattern = f"ply_data_{part}*id2file.json"
    lists = sorted((root / "pt").glob(pattern))
    if not lists:
        wanted = root / "pt" / pattern
        raise FileNotFoundError(f"`{wanted}` should be a list. Found {tables.beside(wanted)}.")
    for name in sorted(name for path in lists for name in _names(path)):
        object_ = PurePosixPath(name)
        target = tables.class_number(object_.parent.name, CLASSES, f"the {part} list, `{name}`")
        folder = root / "image" / object_.parent.name / object_.stem
        images = [folder / f"{object_.stem}.{degree}.png" for degree in range(180)]
        yield Entry(f"{part}/{object_.stem}", target, {"front": images[:90], "rear": images[90:]})


def _names(path: Path) -> list[str]:
    names = tables.read_json(path)
    if not isinstance(names, list) or not all(isinstance(n, str) and "/" in n for n in names):
        raise ValueError(f"`{path}` should be a list of `<class>/<object>.ply`. Found others.")
    return names


def fake(out: Path, seed: int = 0) -> None:
    """3 training and 1 test object of 3 classes, in 12 views of 24 x 24."""
    fakes.new_folder(out)
    for place, kind in enumerate(("airplane", "night_stand", "xbox")):
        for i, part in enumerate(("train", "train", "train", "test"), start=1):
            for view in range(1, VIEWS + 1):
                name = f"{kind}_{i:04d}.obj.shaded_v{view:03d}.png"
                drawn = seed + 1000 * place + 100 * i + view
                fakes.write_picture(out / kind / part / name, place, (24, 24), drawn)
