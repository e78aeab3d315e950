"""CUB-200-2011 with texts: 11,788 photographs of 200 kinds of birds, ten descriptions of each.

Layout:

    classes.txt images.txt image_class_labels.txt train_test_split.txt
    images/<class>/<name>.jpg
    text_c10/<class>/<name>.txt         ten lines, each a description

The four lists start each line with a number; classes are named as `001.Black_footed_Albatross`, in
the order of their numbers. Instead of `train_test_split.txt`, `my_train_cub.txt` and
`my_test_cub.txt` with lines `<name>.jpg <class>` are taken where they are there. 5,994 + 5,794
images; there is no published validation split: one in ten training images of each class, in order
of names, is held out.

Images for research, not commercially. Source: Wah et al., Caltech 2011; Reed et al., CVPR 2016 for
the texts. Traps: some photographs are in ImageNet too, on which encoders are trained; the zero-shot
split of Reed et al. divides classes and is another task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.arguments import number
from equivox.data import architectures, fakes, held_out, tables, text
from equivox.data.decoders import FileDecoder, Image, Text
from equivox.data.field import Contents, Damaged, Draw, Entry, Load

QUICK = {"size": 32, "encoder": "small"}

FAKE_CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")


@dataclass(frozen=True)
class Descriptions(FileDecoder):
    """One of the lines of a text file: drawn in training, else the first. The source is its path.

    :param words: What reads a line.
    """

    words: Text

    @property
    def shape(self) -> tuple[int, ...]:
        return self.words.shape

    def load(self, part: Path) -> Tensor:
        """The tokens of all lines."""
        try:
            lines = tables.lines(part)
        except ValueError as error:
            raise Damaged(str(error)) from error
        return torch.stack([self.words.finish(text.cleaned(x), None, self.load) for x in lines])

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        tokens = load(source)
        if draw is None:
            return tokens[0]
        return tokens[int(torch.randint(len(tokens), (), generator=draw.generator("line")))]


def read(
    root: Path,
    *,
    length: int = 40,
    tokenizer: str | None = None,
    size: int = 224,
    keep: int | None = None,
    encoder: str = "resnet18",
) -> Contents:
    """CUB with texts under `root`.

    :param length: Tokens of a description.
    :param tokenizer: A folder with a model of `transformers` and its tokenizer, such as BERT's: it
        reads the texts. Without one, words are hashed and their embeddings averaged.
    :param size: Side of an image.
    :param keep: Reduce images to this shorter side before anything is cut from them.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    number("length", length, least=1)
    numbered = _numbered(root / "classes.txt")
    classes = tuple(numbered[key] for key in sorted(numbered, key=int))
    parts = _parts(root, numbered)
    entries = {
        part: [_entry(root, name, folder, classes) for folder, name in names]
        for part, names in parts.items()
    }
    words = Text.of(tokenizer, length)
    return Contents(
        entries={**held_out.by_class(entries["train"]), "test": entries["test"]},
        decoders={"image": Image(size=size, keep=keep), "text": Descriptions(words)},
        architectures=architectures.of_image_and_text(encoder, words),
        classes=classes,
    )


Names = Sequence[tuple[str, str]]


def _numbered(path: Path) -> dict[str, str]:
    """What stands behind the number of each line."""
    found: dict[str, str] = {}
    for key, value in tables.rows(path, fields=2, separator=" "):
        if not key.isdecimal() or key in found:
            raise ValueError(
                f"Lines of `{path}` should start with a number of their own. Found `{key} {value}`."
            )
        found[key] = value
    return found


def _parts(root: Path, classes: Mapping[str, str]) -> Mapping[str, Names]:
    """Class and name, without its ending, of the images of "train" and "test"."""
    lists = {part: root / f"my_{part}_cub.txt" for part in ("train", "test")}
    if lists["train"].is_file():
        rows = {part: tables.rows(path, 2, separator=" ") for part, path in lists.items()}
        return {
            part: [(folder, Path(name).stem) for name, folder in found]
            for part, found in rows.items()
        }
    images = _numbered(root / "images.txt")
    labels = _numbered(root / "image_class_labels.txt")
    split = _numbered(root / "train_test_split.txt")
    for name, other in (("image_class_labels", labels), ("train_test_split", split)):
        if other.keys() != images.keys():
            odd = sorted(other.keys() ^ images.keys(), key=int)
            raise ValueError(
                f"`{name}.txt` should list the images of `images.txt`. Found {len(odd)} numbers in "
                f"one of them alone, such as {odd[0]}."
            )
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for key, path in images.items():
        if labels[key] not in classes or split[key] not in ("0", "1"):
            raise ValueError(
                f"An image should have a class of `classes.txt` and be 0 (test) or 1 (training). "
                f"Found class `{labels[key]}` and `{split[key]}` for `{path}`."
            )
        part = "train" if split[key] == "1" else "test"
        parts[part].append((classes[labels[key]], Path(path).stem))
    return parts


def _entry(root: Path, name: str, folder: str, classes: Sequence[str]) -> Entry:
    sources = {
        "image": root / "images" / folder / f"{name}.jpg",
        "text": root / "text_c10" / folder / f"{name}.txt",
    }
    label = tables.class_number(folder, classes, f"the row of `{name}`")
    return Entry(f"{folder}/{name}", label, sources)


def fake(out: Path, seed: int = 0) -> None:
    """3 classes of 3 training and 2 test images of 32 x 40, with two descriptions each."""
    fakes.new_folder(out)
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for i in range(5 * len(FAKE_CLASSES)):
        place, folder = i // 5 + 1, FAKE_CLASSES[i // 5]
        name = f"Bird_{i:04d}"
        lists["images"].append(f"{i + 1} {folder}/{name}.jpg")
        lists["image_class_labels"].append(f"{i + 1} {place}")
        lists["train_test_split"].append(f"{i + 1} {int(i % 5 < 3)}")
        fakes.write_picture(out / "images" / folder / f"{name}.jpg", place, (32, 40), seed + i)
        path = out / "text_c10" / folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = folder[4:].replace("_", " ")
        path.write_text(f"This is bird {i}, a {kind}.\nA {kind} that sits.\n", encoding="utf-8")
    lists["classes"] = [f"{i} {name}" for i, name in enumerate(FAKE_CLASSES, start=1)]
    for name, rows in lists.items():
        (out / f"{name}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
