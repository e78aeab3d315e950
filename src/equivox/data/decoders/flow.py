"""Optical flow, stored as gray images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from equivox.data import media
from equivox.data.decoders.visual import Frames
from equivox.data.field import Damaged, Draw, Load


@dataclass(frozen=True)
class Flow(Frames):
    """Optical flow: (2 * stack, count, size, size), for each field u before v, in [-1, 1].

    The source is the folder of u and that of v. 0 stands for no motion. In training it is cut and
    flipped like the frames that draw from the same stream; where it is flipped, u changes its sign.

    :param channels: Of the files: they are gray.
    :param count: How many moments of a clip.
    :param stack: How many fields, one after the other, from each of them.
    """

    channels: int = 1
    stack: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (2 * self.stack, self.count, self.size, self.size)

    def parts(self, source: Any) -> Sequence[Path]:
        return [path for side in source for path in super(Flow, self).parts(side)]

    def missing(self, source: Any) -> list[Path]:
        return [path for side in source for path in super(Flow, self).missing(side)]

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        u, v = (super(Flow, self).parts(side) for side in source)
        if len(u) != len(v) or not u:
            raise Damaged(
                f"`{source[0]}` and `{source[1]}` should hold equally many fields. Found {len(u)} "
                f"and {len(v)}."
            )
        moments = None if draw is None else draw.generator("moment")
        starts = media.segments(max(1, len(u) - self.stack + 1), self.count, moments)
        places = [min(start + i, len(u) - 1) for start in starts for i in range(self.stack)]
        chosen = [side[place] for place in places for side in (u, v)]
        images = Frames(
            self.size, 1, self.keep, self.crop, self.flip, self.stream, count=len(chosen)
        )
        seen = images.finish(chosen, draw, load)[0]  # the fields in order, u and v in turn
        if draw is not None and self.flip and media.heads(draw.generator(self.stream)):
            seen[0::2].neg_()  # heads is the first that a view draws
        return seen.unflatten(0, (self.count, 2 * self.stack)).transpose(0, 1)
