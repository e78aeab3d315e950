"""MVSA: tweets with an image and a sentiment, single (4,869) or multiple (19,600).

Layout, the first of these that is there:

    train.jsonl dev.jsonl test.jsonl           (QMF) {"id", "text", "img", "label"}; images by `img`
    my_train_mvsa.txt my_test_mvsa.txt         (MLA) `<id>.jpg <class>`; images and texts in `data/`
    labelResultAll.txt data/<id>.jpg data/<id>.txt     (raw) `<id>⇥<of the text>,<of the image>`,
                                               thrice a line in MVSA-Multiple

Raw labels: a pair of which one side is positive and the other negative is left out; a neutral side
yields to the other. In MVSA-Multiple the majority of the three counts, and without one the pair is
left out. The raw form has no split: of each class, in order of ids, one in ten is tested on and one
in ten validated on. MLA's has no validation: one in ten is held out. QMF: 1,555 + 518 + 519.

For research. Source: Niu et al., MultiMedia Modeling 2016. Traps: positive is most of it, so look
at macro F1; some texts are not in UTF-8, and what is not is replaced; retweets are near-copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, held_out, tables, text
from equivox.data.decoders import FileDecoder, Image, Text
from equivox.data.field import Contents, Entry

CLASSES = ("positive", "neutral", "negative")

QUICK = {"size": 32, "encoder": "small"}


@dataclass(frozen=True)
class TextFile(FileDecoder):
    """A text in a file, as `words` reads it. The source is its path."""

    words: Text

    @property
    def shape(self) -> tuple[int, ...]:
        return self.words.shape

    def load(self, part: Path) -> Tensor:
        found = part.read_bytes().decode("utf-8-sig", "replace")
        return self.words.finish(text.cleaned(found), None, self.load)

    def remark(self, loaded: Tensor) -> str:
        return "no words" if bool((loaded == loaded[-1]).all()) else ""


def read(
    root: Path,
    *,
    agree: str = "no contradiction",
    length: int = 40,
    tokenizer: str | None = None,
    size: int = 224,
    keep: int | None = None,
    encoder: str = "resnet18",
) -> Contents:
    """MVSA under `root`.

    :param agree: Which raw pairs are kept: "no contradiction", or "equal" labels of text and image
        alone.
    :param length: Tokens of a text.
    :param tokenizer: A folder with a model of `transformers` and its tokenizer, such as BERT's: it
        reads the texts. Without one, words are hashed and their embeddings averaged.
    :param size: Side of an image.
    :param keep: Reduce images to this shorter side before anything is cut from them.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("agree", agree, ("no contradiction", "equal"))
    number("length", length, least=1)
    words = Text.of(tokenizer, length)
    left_out: dict[str, list[str]] = {}
    reader: Text | TextFile = TextFile(words)
    if (root / "train.jsonl").is_file():
        entries, reader = _of_json(root), words
    elif (root / "my_train_mvsa.txt").is_file():
        entries = _of_lists(root)
    else:
        entries, left_out = _raw(root, agree)
    return Contents(
        entries=entries,
        decoders={"image": Image(size=size, keep=keep), "text": reader},
        architectures=architectures.of_image_and_text(encoder, words),
        classes=CLASSES,
        left_out=left_out,
    )


def _of_json(root: Path) -> dict[str, list[Entry]]:
    dev = "dev" if (root / "dev.jsonl").is_file() else "val"
    names = {"train": "train", "validation": dev, "test": "test"}
    return {split: _of_lines(root, root / f"{name}.jsonl") for split, name in names.items()}


def _of_lines(root: Path, path: Path) -> list[Entry]:
    found = []
    for line, row in enumerate(tables.json_lines(path), start=1):
        where = f"line {line} of `{path}`"
        if not isinstance(row, dict) or not {"id", "text", "img", "label"} <= row.keys():
            raise ValueError(f"{where} should hold `id`, `text`, `img`, `label`. Found {row}.")
        label = tables.class_number(str(row["label"]), CLASSES, where)
        sources = {"image": root / str(row["img"]), "text": text.cleaned(str(row["text"]))}
        found.append(Entry(str(row["id"]), label, sources))
    return found


def _entry(root: Path, id_: str, label: int) -> Entry:
    folder = root / "data"
    return Entry(id_, label, {"image": folder / f"{id_}.jpg", "text": folder / f"{id_}.txt"})


def _of_lists(root: Path) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {"train": [], "test": []}
    for part, entries in found.items():
        path = root / f"my_{part}_mvsa.txt"
        for name, label in tables.rows(path, fields=2, separator=" "):
            place = tables.class_number(label, CLASSES, f"`{name}` of `{path}`")
            entries.append(_entry(root, Path(name).stem, place))
    return {**held_out.by_class(found["train"]), "test": found["test"]}


def _raw(root: Path, agree: str) -> tuple[dict[str, list[Entry]], dict[str, list[str]]]:
    """All pairs, divided 8 : 1 : 1 by class."""
    left_out: dict[str, list[str]] = {}
    entries = []
    for id_, pairs in _labels(root / "labelResultAll.txt"):
        label = merged(pairs, agree)
        if isinstance(label, str):
            left_out.setdefault(label, []).append(id_)
        else:
            entries.append(_entry(root, id_, label))
    first = held_out.by_class(entries, every=10)
    second = held_out.by_class(first["train"], every=9)
    return {**second, "test": first["validation"]}, left_out


def _labels(path: Path) -> list[tuple[str, list[list[int]]]]:
    """Ids and the labels (text, image) of every annotator."""
    found = []
    for line, row in enumerate(tables.lines(path), start=1):
        id_, *pairs = (cell.strip() for cell in row.split("\t"))
        if line == 1 and not id_.isdecimal():
            continue  # the header
        names = [pair.split(",") for pair in pairs]
        where = f"line {line} of `{path}`"
        if not names or any(len(pair) != 2 for pair in names):
            raise ValueError(
                f"{where} should be `<id>⇥<of the text>,<of the image>`. Found `{row}`."
            )
        numbers = [[tables.class_number(n.strip(), CLASSES, where) for n in pair] for pair in names]
        found.append((id_, numbers))
    return found


def merged(pairs: Sequence[Sequence[int]], agree: str = "no contradiction") -> int | str:
    """One label of the pairs (text, image) of all annotators, or why there is none.

    >>> merged([(0, 1)]), merged([(1, 1), (1, 2), (0, 2)]), merged([(0, 2)])
    (0, 2, 'text and image contradict each other')
    """
    sides = []
    for side in zip(*pairs, strict=True):
        best = max(set(side), key=side.count)
        if 2 * side.count(best) <= len(side):
            return "the annotators have no majority"
        sides.append(best)
    words, image = sides
    if words == image:
        return words
    if agree == "equal":
        return "labels of text and image differ"
    if 1 not in sides:
        return "text and image contradict each other"
    return image if words == 1 else words


def fake(out: Path, seed: int = 0) -> None:
    """63 tweets in the raw form with images of 32 x 40, two of them contradictory."""
    fakes.new_folder(out)
    rows = ["ID\ttext,image"]
    for i in range(1, 64):
        name = CLASSES[i % 3]
        pair = f"{name},{name if i % 2 else 'neutral'}"
        rows.append(f"{i}\t{pair if i < 62 else 'positive,negative'}")
        fakes.write_picture(out / "data" / f"{i}.jpg", i % 3, (32, 40), seed + i)
        words = f"RT @a: so {name} about no. {i} #mood http://t.co/a"
        (out / "data" / f"{i}.txt").write_bytes(words.encode() + b" \xb6\n")
    (out / "labelResultAll.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
