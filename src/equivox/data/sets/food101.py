"""UPMC Food-101: 101 dishes, an image and the title of its recipe page each.

Layout:

    images/{train,test}/<class>/<class>_<n>.jpg
    texts/{train,test}_titles.csv       with a header: Image_path,text,label

Classes are the sorted folder names of `images/train`; with all 101 of them there, apple_pie …
waffles. There is no published validation split: every tenth training image of each class, in order
of names, is held out.

For research. Source: Wang et al., ICME Workshops 2015. Traps: the text dominates by far; the title
often names the dish; a reference loader names an empty tokenizer and does not start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivox.arguments import number
from equivox.data import architectures, fakes, held_out, tables, text
from equivox.data.decoders import Image, Text
from equivox.data.field import Contents, Entry

QUICK = {"size": 32, "encoder": "small"}

FAKE_CLASSES = ("apple_pie", "sushi", "tacos", "waffles")


def read(
    root: Path,
    *,
    length: int = 40,
    tokenizer: str | None = None,
    size: int = 224,
    keep: int | None = None,
    encoder: str = "resnet18",
) -> Contents:
    """UPMC Food-101 under `root`.

    :param length: Tokens of a title: 40 in BalanceMM.
    :param tokenizer: A folder with a model of `transformers` and its tokenizer, such as BERT's: it
        reads the titles. Without one, words are hashed and their embeddings averaged.
    :param size: Side of an image.
    :param keep: Reduce images to this shorter side before anything is cut from them.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    number("length", length, least=1)
    classes = _classes(root)
    train, test = (_entries(root, part, classes) for part in ("train", "test"))
    words = Text.of(tokenizer, length)
    return Contents(
        entries={**held_out.by_class(train), "test": test},
        decoders={"image": Image(size=size, keep=keep), "text": words},
        architectures=architectures.of_image_and_text(encoder, words),
        classes=classes,
    )


def _classes(root: Path) -> tuple[str, ...]:
    folder = root / "images" / "train"
    found = (
        sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    )
    if not found:
        raise FileNotFoundError(
            f"`{folder}` should hold one folder a class. Found {tables.beside(folder)}."
        )
    return tuple(found)


def _entries(root: Path, part: str, classes: Sequence[str]) -> list[Entry]:
    """The samples of a list; an image is named with or without the folders above it."""
    path = root / "texts" / f"{part}_titles.csv"
    found = []
    for row in tables.records(path, ("Image_path", "text", "label"), separator=","):
        name = Path(row["Image_path"]).name
        number = tables.class_number(row["label"], classes, f"`{path.name}`, `{name}`")
        image = root / "images" / part / row["label"] / name
        sources = {"image": image, "text": text.cleaned(row["text"])}
        found.append(Entry(f"{part}/{name}", number, sources))
    return found


def fake(out: Path, seed: int = 0) -> None:
    """4 classes of 3 training and 2 test images of 32 x 40, with titles."""
    fakes.new_folder(out)
    for part, count in (("train", 3), ("test", 2)):
        rows = []
        for place, dish in enumerate(FAKE_CLASSES):
            for i in range(count):
                name = f"{dish}_{i}.jpg"
                drawn = seed + 100 * place + 10 * i + (part == "test")
                fakes.write_picture(out / "images" / part / dish / name, place, (32, 40), drawn)
                rows.append((name, f"RT Best {dish.replace('_', ' ')}, no. {i} #food", dish))
        header = ("Image_path", "text", "label")
        tables.written(out / "texts" / f"{part}_titles.csv", rows, header)
