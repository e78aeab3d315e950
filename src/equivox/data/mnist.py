"""MNIST from its idx files, plain or in gzip."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from equivox.data import tables
from equivox.data.decoders import InMemory
from equivox.data.field import Damaged, Draw, Load

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

MEAN, STD = 0.1307, 0.3081
CLASSES = tuple("0123456789")
PARTS = {"train": "train", "test": "t10k"}
BYTES = 0x08
"""The third byte of an idx file of unsigned bytes; the fourth is the number of axes."""


class Digits(NamedTuple):
    """Images and the digits they show."""

    images: UInt8[Tensor, "samples 28 28"]
    target: Int[Tensor, " samples"]


def read_mnist(root: Path) -> dict[str, Digits]:
    """The "train" and the "test" images of the four idx files in a folder.

    :param root: Holds `train-images-idx3-ubyte` and so on, with or without `.gz`.
    :raises FileNotFoundError: Where one is missing.
    :raises Damaged: Where one is not whole, or images and labels do not fit.
    """
    found = {}
    for part, name in PARTS.items():
        images = read_idx(_path(root, f"{name}-images", 3), 3)
        target = read_idx(_path(root, f"{name}-labels", 1), 1).long()
        if len(images) != len(target) or images.shape[1:] != (28, 28) or int(target.max()) > 9:
            raise Damaged(
                f"The idx files `{name}` in `{root}` should hold images of 28 x 28 and one digit "
                f"each. Found images {tuple(images.shape)} and {len(target)} labels up to "
                f"{int(target.max())}."
            )
        found[part] = Digits(images, target)
    return found


def read_idx(path: Path, axes: int) -> Tensor:
    """The bytes in an idx file.

    :param axes: How many it should have.
    :raises Damaged: For another file, or one that is cut off.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(f"`{path}` should be whole. Found: {error}. Copy it again.") from error
    start = 4 + 4 * axes
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + int(torch.tensor(shape).prod())
    if raw[:4] != bytes((0, 0, BYTES, axes)) or len(raw) != expected or expected == start:
        raise Damaged(
            f"`{path}` should be a whole idx file of bytes with {axes} axes. Found {len(raw)} "
            f"bytes that start with {list(raw[:4])}. Copy it again."
        )
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).view(shape)


def _path(root: Path, name: str, axes: int) -> Path:
    for ending in (f"-idx{axes}-ubyte", f".idx{axes}-ubyte"):
        for packed in ("", ".gz"):
            if (root / f"{name}{ending}{packed}").is_file():
                return root / f"{name}{ending}{packed}"
    path = root / f"{name}-idx{axes}-ubyte"
    raise FileNotFoundError(
        f"`{path}` should be there, or `{path.name}.gz`. Found {tables.beside(path)}."
    )


@dataclass(frozen=True)
class Pixels(InMemory):
    """A gray image (28, 28) in bytes as (1, 28, 28), normalised. The source is the image."""

    shape: tuple[int, ...] = (1, 28, 28)
    mean: float = MEAN
    std: float = STD

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        return (source[None] / 255 - self.mean) / self.std


# ── fake files ──────────────────────────────────────────────────────────────────────────────────


def write_fake(root: Path, train: int, test: int, seed: int, packed: bool = False) -> None:
    """Four idx files: a bar for each digit, at its own height, in a little noise."""
    root.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(seed)
    for name, count in (("train", train), ("t10k", test)):
        target = (torch.arange(count) % 10).to(torch.uint8)
        images = torch.randint(0, 40, (count, 28, 28), generator=draw)
        for image, digit in zip(images, target.tolist(), strict=True):
            image[2 * digit + 4 : 2 * digit + 6, 4:24] += 200
        _write_idx(root / f"{name}-images-idx3-ubyte", images.to(torch.uint8), packed)
        _write_idx(root / f"{name}-labels-idx1-ubyte", target, packed)


def _write_idx(path: Path, x: Tensor, packed: bool) -> None:
    head = bytes((0, 0, BYTES, x.ndim)) + b"".join(n.to_bytes(4, "big") for n in x.shape)
    raw = head + bytes(x.flatten().tolist())
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(raw, mtime=0))
    else:
        path.write_bytes(raw)
