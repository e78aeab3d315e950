"""Seeds as dots on one scale, before the interval of the best yardstick."""

from __future__ import annotations

import math
from statistics import fmean, quantiles

from equivox.bench.leaderboard import NOTHING, Leaderboard
from equivox.bench.statistics import Interval
from equivox.report.page import Markup, tag

WIDTH, HEIGHT = 160, 22
_EDGE = 6
_MIDDLE = HEIGHT / 2
_CUT = 10
"""Per cent of the runs that may lie left of the scale."""


class Strips:
    """The strips of one board.

    Attributes: `low` and `high`, the ends of the scale; `best`, the interval of the best yardstick.
    """

    def __init__(self, board: Leaderboard) -> None:
        self.board = board
        metric = {line.method: line.metric for line in board.lines}
        self.best: Interval = metric.get(board.best, NOTHING)
        every = [x for values in board.metrics.values() for x in values.values()]
        known = [x for x in (self.best.low, self.best.high) if math.isfinite(x)]
        self.low = min([lowest(every), *known])
        self.high = max([*every, *known])

    def strip(self, method: str) -> Markup:
        """The seeds of a method; what lies below the scale is an arrow at its left end."""
        found = self.board.metrics[method]
        dots = [self._dot(seed, x) for seed, x in sorted(found.items())]
        mean = self._x(max(fmean(found.values()), self.low))
        said = ", ".join(f"{x:.3f}" for x in found.values())
        return tag(
            "svg",
            self._band(),
            tag("line", x1=mean, x2=mean, y1=3, y2=HEIGHT - 3, class_="mean"),
            *dots,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=f"By seed: {said}",
            class_="strip",
        )

    @property
    def legend(self) -> str:
        """What a strip shows, for a caption."""
        return (
            f"Dots are seeds on a scale from {self.low:.3f} to {self.high:.3f}, an arrow is one "
            f"below it, the long stroke is the mean; the band is the best yardstick's interval."
        )

    def _x(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(_EDGE + (WIDTH - 2 * _EDGE) * share, 1)

    def _band(self) -> Markup:
        low, high = self.best.low, self.best.high
        if not math.isfinite(low):
            return Markup("")
        width = round(max(self._x(high) - self._x(low), 1.5), 1)
        return tag("rect", x=self._x(low), y=0, width=width, height=HEIGHT, class_="band")

    def _dot(self, seed: int, value: float) -> Markup:
        title = tag("title", f"seed {seed}: {value:.4f}")
        if value < self.low:
            points = f"0,{_MIDDLE} 6,{_MIDDLE - 4} 6,{_MIDDLE + 4}"
            return tag("polygon", title, points=points, class_="seed")
        return tag("circle", title, cx=self._x(value), cy=_MIDDLE, r=3, class_="seed")


def lowest(values: list[float]) -> float:
    """The low end of a scale that a few failures do not stretch."""
    if len(values) == 1:
        return values[0]
    return max(min(values), quantiles(values, n=100)[_CUT - 1])
