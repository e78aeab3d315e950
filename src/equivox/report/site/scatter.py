"""The metric against the cost of a step, with the methods that no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from equivox.report.page import Markup, tag

WIDTH, HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 14, 38


@dataclass(frozen=True)
class Point:
    """A method: what it costs, as a multiple of joint training, and what it reaches."""

    name: str
    title: str
    cost: float
    metric: float
    yardstick: bool
    link: str


def scatter(
    title: str, label: str, points: Sequence[Point], front: Sequence[str], low: float
) -> Markup:
    """Methods as circles, yardsticks as squares; those on the front are numbered by their cost.

    :param label: What is said of the axis of costs.
    :param front: The names on the front.
    :param low: The low end of the metric's axis; what lies below it is an arrow there.
    """
    axes = _Axes(points, low)
    numbered = sorted((p for p in points if p.name in front), key=lambda p: p.cost)
    told = ", ".join(f"{p.title} ({p.metric:.3f} at {p.cost:.2g})" for p in numbered)
    alt = f"{title}: metric against cost. No method is better and cheaper than {told}."
    drawn = [
        *axes.drawn(label),
        _steps(numbered, axes),
        *(_mark(p, axes, p.name in front) for p in points),
        *(_number(i, p, axes) for i, p in enumerate(numbered, 1)),
    ]
    svg = tag("svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=alt)
    named = [tag("li", tag("a", p.title, href=p.link)) for p in numbered]
    return tag("div", tag("p", title), svg, tag("ol", *named), class_="chart scatter")


class _Axes:
    """A logarithmic axis of costs and a linear one of the metric."""

    def __init__(self, points: Sequence[Point], low: float) -> None:
        costs = [p.cost for p in points]
        self.costs = math.log(min(costs) / 1.1), math.log(max(costs) * 1.1)
        self.ticks = _round_numbers(low, max(p.metric for p in points))
        self.low = self.ticks[0]

    def x(self, cost: float) -> float:
        share = (math.log(cost) - self.costs[0]) / (self.costs[1] - self.costs[0])
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * share, 1)

    def y(self, metric: float) -> float:
        share = (max(metric, self.low) - self.low) / (self.ticks[-1] - self.low)
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share, 1)

    def _marks(self) -> list[float]:
        """Round costs on the axis: of the coarsest steps that give two of them or more."""
        low, high = (math.exp(end) for end in self.costs)
        for steps in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(1 + i / 10 for i in range(90))):
            every = [step * 10.0**power for power in range(-2, 4) for step in steps]
            found = [round(cost, 6) for cost in every if low <= cost <= high]
            if len(found) > 1:
                return found
        return []

    def drawn(self, label: str) -> list[Markup]:
        """Lines, numbers and the label."""
        digits = max(1, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        floor = HEIGHT - _BOTTOM
        found = [_line(_LEFT, WIDTH - _RIGHT, self.y(t), self.y(t)) for t in self.ticks]
        found += [_text(f"{t:.{digits}f}", _LEFT - 6, self.y(t) + 4, "end") for t in self.ticks]
        for cost in self._marks():
            found.append(_line(self.x(cost), self.x(cost), floor, floor + 4))
            found.append(_text(f"{cost:g}", self.x(cost), floor + 17, "middle"))
        middle = (WIDTH + _LEFT - _RIGHT) / 2
        return [*found, _text(label, middle, HEIGHT - 5, "middle")]


def _steps(numbered: Sequence[Point], axes: _Axes) -> Markup:
    """The front: what is reached at a cost, as stairs."""
    corners = []
    for before, point in zip([None, *numbered], numbered, strict=False):
        if before is not None:
            corners.append((axes.x(point.cost), axes.y(before.metric)))
        corners.append((axes.x(point.cost), axes.y(point.metric)))
    points = " ".join(f"{x},{y}" for x, y in corners)
    return tag("polyline", points=points, class_="front")


def _mark(point: Point, axes: _Axes, on_front: bool) -> Markup:
    title = tag("title", f"{point.title}: {point.metric:.3f} at {point.cost:.2f}")
    x, y = axes.x(point.cost), axes.y(point.metric)
    kind = "best" if on_front else "other"
    if point.metric < axes.low:
        down = f"{x},{y} {x - 4},{y - 6} {x + 4},{y - 6}"
        return tag("polygon", title, points=down, class_=kind)
    if point.yardstick:
        return tag("rect", title, x=x - 4, y=y - 4, width=8, height=8, class_=kind)
    return tag("circle", title, cx=x, cy=y, r=4, class_=kind)


def _number(number: int, point: Point, axes: _Axes) -> Markup:
    return _text(str(number), axes.x(point.cost), axes.y(point.metric) - 8, "middle", None)


def _line(x1: float, x2: float, y1: float, y2: float) -> Markup:
    return tag("line", x1=x1, x2=x2, y1=y1, y2=y2, class_="grid")


def _text(text: str, x: float, y: float, anchor: str, kind: str | None = "soft") -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def _round_numbers(low: float, high: float) -> list[float]:
    """Some round numbers that hold both; at least 0.05 apart, so that noise stays small."""
    low = min(low, high - 0.05)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]
