"""Images and the frames of clips."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.data import media, packed
from equivox.data.decoders.base import FileDecoder
from equivox.data.field import Damaged, Draw, Load


@dataclass(frozen=True)
class Image(FileDecoder):
    """An image file: the standard pipeline of `media`. The source is its path.

    :param size: Side of the square.
    :param channels: 3 (RGB) or 1 (gray, which is scaled to [-1, 1]).
    :param keep: Reduce the image so far before anything is cut from it: much less to decode from a
        cache, and not quite the standard pipeline any more.
    :param crop: Whether training takes a random part; otherwise the whole image.
    :param flip: Whether training flips.
    :param stream: What the part and the flip are drawn from, see `Draw.generator`.
    """

    size: int = 224
    channels: int = 3
    keep: int | None = None
    crop: bool = True
    flip: bool = True
    stream: str = "view"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.size, self.size)

    def load(self, part: Path) -> Tensor:
        return media.read_image(part, self.channels, self.keep)

    def remark(self, loaded: Tensor) -> str:
        return "one colour" if bool((loaded == loaded[:, :1, :1]).all()) else ""

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        return self.view(load(source), draw)

    def view(self, images: Tensor, draw: Draw | None) -> Tensor:
        """(..., channels, height, width) in bytes to the model's input, all images alike."""
        box, flip = None, False
        if draw is not None:
            generator = draw.generator(self.stream)
            flip = media.heads(generator) and self.flip
            height, width = images.shape[-2:]
            box = media.random_box(height, width, generator) if self.crop else None
        seen = media.resized(images, self.size, box)
        seen = seen.flip(-1) if flip else seen
        if self.channels == 3:
            return media.normalised(seen)
        return media.normalised(seen, (0.5,), (0.5,))


@dataclass(frozen=True)
class Frames(Image):
    """Frames of a clip, one of each of `count` equal segments: (channels, count, size, size).

    The source is a folder, or the sorted list of its files. In training the frames, one part of the
    image and a flip are drawn, the same part and flip for all frames (reference loaders draw them
    anew for every frame, and so tear the motion apart). Frames of several sizes are brought to that
    of the first.

    :param count: How many frames.
    :param pattern: Which files of a folder are frames, see `media.frame_files`.
    """

    count: int = 1
    pattern: str = "*.jpg"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.count, self.size, self.size)

    def parts(self, source: Any) -> Sequence[Path]:
        if not isinstance(source, Path):
            return list(source)
        return sorted(media.frame_files(source, self.pattern), key=_in_order)

    def missing(self, source: Any) -> list[Path]:
        if isinstance(source, Path):  # without frames it is as good as not there
            return [] if media.frame_files(source, self.pattern) else [source]
        return super().missing(source)

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        files = self.parts(source)
        if not files:
            raise Damaged(f"`{source}` should hold frames `{self.pattern}`. Found none.")
        moments = None if draw is None else draw.generator("moment")
        chosen = media.segments(len(files), self.count, moments)
        return self.view(_stacked([load(files[i]) for i in chosen]), draw).transpose(0, 1)


@dataclass(frozen=True)
class PackedFrames(Image):
    """Frames of a clip that lie as encoded pictures in one hdf5 file: otherwise as `Frames`.

    The source is the file's path. It is one part, so that all its frames are decoded for those that
    are taken: a cache pays.

    :param count: How many frames.
    """

    count: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.count, self.size, self.size)

    def load(self, part: Path) -> Tensor:
        pictures = (io.BytesIO(picture) for picture in packed.read(part))
        images = [media.decoded_image(p, part, self.channels, self.keep) for p in pictures]
        return _stacked(images)

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        frames = load(source)
        moments = None if draw is None else draw.generator("moment")
        chosen = frames[media.segments(len(frames), self.count, moments)]
        return self.view(chosen, draw).transpose(0, 1)


def _stacked(images: Sequence[Tensor]) -> Tensor:
    return torch.stack([media.scaled(image, *images[0].shape[-2:]) for image in images])


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Frame 2 before frame 10, whether or not the numbers are filled with zeros."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
