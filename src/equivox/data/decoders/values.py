"""Arrays in files, texts, and tensors that are in memory already."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.data import text
from equivox.data.arrays import read_array
from equivox.data.decoders.base import FileDecoder, NoFile
from equivox.data.field import Damaged, Draw, Load


@dataclass(frozen=True)
class Array(FileDecoder):
    """An array of numbers in a file: `.npy`, `.pkl` or `.pt`. The source is its path.

    The first axis is cut, or filled with zeros, to the wanted length; then (x - mean) / std.

    :param dims: The wanted shape of the array itself.
    :param channel: Put an axis of length 1 in front, as spectrograms need it.
    """

    dims: tuple[int, ...]
    mean: float = 0.0
    std: float = 1.0
    channel: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.dims) if self.channel else self.dims

    def load(self, part: Path) -> Tensor:
        x = read_array(part)
        if x.ndim != len(self.dims) or x.shape[1:] != self.dims[1:]:
            raise Damaged(
                f"`{part}` should hold an array of {self.dims}, of any length. Found one of "
                f"{tuple(x.shape)}."
            )
        if not bool(x.isfinite().all()):
            raise Damaged(f"`{part}` should hold finite numbers. Found others.")
        filled = x.new_zeros(self.dims)
        filled[: len(x)] = x[: len(filled)]
        found = (filled - self.mean) / self.std
        return found[None] if self.channel else found


@dataclass(frozen=True)
class Text(NoFile):
    """A text as token numbers (length,). The source is the text.

    Without a tokenizer, words are hashed. The architecture that fits is `BagOfTokens(vocabulary)`,
    or, with a tokenizer, a text transformer from the same folder.

    :param length: Tokens that are kept.
    :param vocabulary: How many numbers there are for hashed words.
    :param folder: Of a tokenizer of `transformers`; make it by `Text.of(folder, length)`.
    :param tokenizer: What its files are like; filled in by `Text.of`.
    """

    length: int = 40
    vocabulary: int = 20_000
    folder: str | None = field(default=None, repr=False)
    tokenizer: str = ""

    @staticmethod
    def of(folder: str | None, length: int = 40, vocabulary: int = 20_000) -> Text:
        """With the tokenizer in `folder`, or without one."""
        known = "" if folder is None else text.fingerprint(folder)
        return Text(length, vocabulary, folder, known)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        if self.folder is None:
            return text.hashed_tokens(source, self.length, self.vocabulary)
        return text.tokens(source, self.length, self.folder)


@dataclass(frozen=True)
class InMemory(NoFile):
    """A tensor that `read` has read already, such as a row of a feature file. The source is it."""

    shape: tuple[int, ...]

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        return torch.as_tensor(source)
