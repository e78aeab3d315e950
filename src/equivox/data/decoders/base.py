"""What the decoders of files have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from equivox.data.field import Draw, Load


@dataclass(frozen=True)
class FileDecoder:
    """A source that is one file. A subclass has `shape`, `load` and, where needed, `finish`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what `finish` returns."""
        raise NotImplementedError

    def parts(self, source: Any) -> Sequence[Path]:
        """The files of a source, in order."""
        return [source]

    def missing(self, source: Any) -> list[Path]:
        """The files of a source that are not there."""
        return [path for path in self.parts(source) if not path.is_file()]

    def load(self, part: Path) -> Tensor:
        """One file decoded, the same every time."""
        raise NotImplementedError

    def remark(self, loaded: Tensor) -> str:
        """What a check should say of a decoded file that is whole and still suspicious."""
        return ""

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        """The model's input."""
        return load(source)


class NoFile:
    """A source that is no file: a text, a tensor. A subclass has `shape` and `finish`."""

    def parts(self, source: Any) -> Sequence[Path]:
        return []

    def missing(self, source: Any) -> list[Path]:
        return []

    def load(self, part: Path) -> Tensor:
        raise NotImplementedError("The source is no file.")

    def remark(self, loaded: Tensor) -> str:
        return ""
