"""Twitter-15 and Twitter-17: a tweet, its image, and the sentiment towards a person or thing in it.

`train.tsv`, `dev.tsv` and `test.tsv`, taken apart at tabs alone (tweets hold quotation marks), with
a header: `index  #1 Label  #2 ImageID  #3 String  #3 String`: the label (0 negative, 1 neutral,
2 positive), the image's file name, the tweet with `$T$` in place of the target, and the target.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, tables, text
from equivox.data.decoders import Image, Text
from equivox.data.field import Contents, Entry

CLASSES = ("negative", "neutral", "positive")
HEADER = ("index", "#1 Label", "#2 ImageID", "#3 String", "#3 String")
LISTS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}


@dataclass(frozen=True)
class Tweet(Text):
    """A tweet as token numbers; where its target stands in it is a part of the preprocessing."""

    target: str = "first"


def reader(folder: str) -> Callable[..., Contents]:
    """The `read` of a set whose images lie in this folder, or in `images`."""

    def read(
        root: Path,
        *,
        target: str = "first",
        length: int = 64,
        tokenizer: str | None = None,
        size: int = 224,
        keep: int | None = None,
        encoder: str = "resnet18",
    ) -> Contents:
        """The tweets under `root`.

        :param target: "first": the target stands before the tweet too; "in place": in it alone
            (AMSS).
        :param length: Tokens of a text.
        :param tokenizer: A folder with a model of `transformers` and its tokenizer, such as BERT's:
            it reads the texts. Without one, words are hashed and their embeddings averaged.
        :param size: Side of an image.
        :param keep: Reduce images to this shorter side before anything is cut from them.
        :param encoder: "resnet18", or "small" for a quick look on a CPU.
        """
        choice("target", target, ("first", "in place"))
        number("length", length, least=1)
        images = next((p for n in (folder, "images") if (p := root / n).is_dir()), root / folder)
        plain = Text.of(tokenizer, length)
        words = Tweet(length, plain.vocabulary, plain.folder, plain.tokenizer, target)
        return Contents(
            entries={s: _entries(root / file, s, images, target) for s, file in LISTS.items()},
            decoders={"image": Image(size=size, keep=keep), "text": words},
            architectures=architectures.of_image_and_text(encoder, words),
            classes=CLASSES,
        )

    return read


def _entries(path: Path, split: str, images: Path, target: str) -> list[Entry]:
    found = []
    for line, (index, label, image, tweet, aim) in _rows(path):
        if label not in ("0", "1", "2"):
            raise ValueError(
                f"Labels of `{path}` should be 0 (negative), 1 (neutral) or 2 (positive). Found "
                f"`{label}` in line {line}."
            )
        sources = {"image": images / image, "text": _text(tweet, aim, target)}
        found.append(Entry(f"{split}/{index}", int(label), sources))
    return found


def _text(tweet: str, aim: str, target: str) -> str:
    """The tweet with its target in place, and the target before it unless not wanted."""
    whole = text.cleaned(tweet.replace("$T$", aim))
    return f"{aim} : {whole}" if target == "first" and aim else whole


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and five fields of each row; the target may be missing from a whole table."""
    head, *body = [  # not `splitlines`: tweets hold further signs that it takes for ends of lines
        (place, [cell.strip() for cell in line.split("\t")])
        for place, line in enumerate(tables.read_text(path).split("\n"), start=1)
        if line.strip()
    ] or [(0, [])]
    names = [re.sub(r"^#\d+\s*|\s", "", name).lower() for name in head[1]]
    if names[:4] != ["index", "label", "imageid", "string"] or len(names) > 5:
        raise ValueError(
            f"`{path}` should have the columns {', '.join(HEADER)}, separated by tabs. Found "
            f"{head[1][:6]}."
        )
    for place, row in body:
        if len(row) != len(names):
            raise ValueError(
                f"Rows of `{path}` should have {len(names)} fields. Found {len(row)} in line "
                f"{place}: {row[:6]}."
            )
    return [(place, row if len(row) == 5 else [*row, ""]) for place, row in body]


def write_fake(out: Path, folder: str, seed: int) -> None:
    """9, 6 and 6 tweets; the first two of a list are one tweet with two targets."""
    fakes.new_folder(out)
    for place, (split, count) in enumerate((("train", 9), ("dev", 6), ("test", 6))):
        rows = ["\t".join(HEADER)]
        for i in range(count):
            label = i % len(CLASSES)
            image = f"{place}_{max(i, 1)}.jpg"
            aim = f"Person {i}"
            tweet = f'RT @ a : " {CLASSES[label]} day for $T$ # {i}' if i > 1 else "$T$ met"
            rows.append("\t".join([str(i + 1), str(label), image, tweet, aim]))
            drawn = seed + 100 * place + i
            fakes.write_picture(out / folder / image, label, (32, 40), drawn)
        (out / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
