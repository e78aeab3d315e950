"""Charts as inline SVG: they follow the page's colours, and every series differs in form as well.

Colours are the page's variables `--s0 …` (series) and `--m0 …` (modalities), which change between
light, dark and print; a line also has its own dashes and mark, a bar its own label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from equivox.report.page import Markup, joined, tag

_Scale = Callable[[float], float]

WIDTH = 360  # about the width of a phone, so that text keeps its size there
HEIGHT = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 36
_DASHES = ("6 4", None, "2 3", "9 3 2 3", "12 4", "4 2", "1 3")
_MARKS = ("", "circle", "square", "triangle", "diamond", "cross", "circle")


@dataclass(frozen=True)
class Line:
    """A series of a line chart: one value an epoch; `style` chooses colour, dashes and mark."""

    name: str
    values: Sequence[float]
    style: int


@dataclass(frozen=True)
class Bar:
    """A bar with its label and the interval of its value; `style` chooses the colour."""

    label: str
    value: float
    low: float
    high: float
    style: int


def line_chart(
    title: str,
    lines: Sequence[Line],
    y_label: str,
    x_label: str = "epoch",
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Lines over epochs, counted from 1, with a legend below.

    :param limits: What the y-axis has to hold besides the values, for charts that are compared.
    :raises ValueError: Where there is no line, or a value is not finite.
    """
    _check(title, [y for line in lines for y in line.values])
    ticks = _ticks([y for line in lines for y in line.values] + list(limits or ()))
    epochs = max(len(line.values) for line in lines)

    def x(epoch: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (epoch - 1) / max(epochs - 1, 1)

    def y(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share

    drawn = [_line(line, [(x(i), y(v)) for i, v in enumerate(line.values, 1)]) for line in lines]
    ends = ", ".join(f"{line.name} {line.values[-1]:.3f}" for line in lines)
    alt = f"{title}: {y_label} over {epochs} {x_label}s; at the end {ends}."
    axes = _axes(ticks, y, epochs, x, x_label)
    return _chart(title, joined(*axes, *drawn), HEIGHT, alt, _legend(lines), y_label)


def bar_chart(
    title: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    x_label: str,
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Groups of horizontal bars with the intervals of their values.

    :param groups: The name of a group and its bars, from above.
    :param limits: What the x-axis has to hold besides the values, for charts that are compared.
    :raises ValueError: Where there is no bar, or a value is not finite.
    """
    bars = [bar for _, group in groups for bar in group]
    _check(title, [bar.value for bar in bars])
    ends = [e for bar in bars for e in (bar.low, bar.high, bar.value) if math.isfinite(e)]
    low, high = min(0.0, *ends, *(limits or ())), max(0.0, *ends, *(limits or ()))
    room = WIDTH - 8 - 92  # the label and value stand to the right of a bar

    def x(value: float) -> float:
        return 4 + room * (value - low) / ((high - low) or 1)

    drawn, top = [], 0.0
    for name, group in groups:
        drawn.append(tag("text", name, x=4, y=top + 14))
        drawn += [_bar(bar, x, top + 20 + 17 * i) for i, bar in enumerate(group)]
        ends_at = top + 20 + 17 * len(group)
        zero = _n(x(0))
        drawn.append(tag("line", x1=zero, x2=zero, y1=_n(top + 18), y2=_n(ends_at), class_="axis"))
        top = ends_at + 8
    said = "; ".join(
        f"{name}: " + ", ".join(f"{b.label} {b.value:.3f}" for b in group) for name, group in groups
    )
    return _chart(title, joined(*drawn), top, f"{title}: {x_label}. {said}.", Markup(""), x_label)


def _chart(
    title: str, drawn: Markup, height: float, alt: str, legend: Markup, label: str
) -> Markup:
    svg = tag(
        "svg",
        tag("title", alt),
        drawn,
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_label=alt,
    )
    heading = tag("p", title, " ", tag("small", label))
    return tag("div", heading, svg, legend, class_="chart")


def _line(line: Line, points: Sequence[tuple[float, float]]) -> Markup:
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    stroke = tag(
        "polyline",
        points=path,
        fill="none",
        stroke=f"var(--s{line.style % 7})",
        stroke_width=2.5 if line.style < 2 else 1.75,
        stroke_dasharray=_DASHES[line.style % 7],
        stroke_linejoin="round",
    )
    return joined(stroke, _mark(line.style, *points[-1]))


def _mark(style: int, x: float, y: float) -> Markup:
    kind, fill = _MARKS[style % 7], f"var(--s{style % 7})"
    if kind == "circle":
        return tag("circle", cx=_n(x), cy=_n(y), r=4, fill=fill)
    shapes: dict[str, list[tuple[float, float]]] = {
        "square": [(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)],
        "triangle": [(0, -4.5), (4.5, 3.5), (-4.5, 3.5)],
        "diamond": [(0, -5), (5, 0), (0, 5), (-5, 0)],
        "cross": [(-4, -4), (0, -1.5), (4, -4), (1.5, 0), (4, 4), (0, 1.5), (-4, 4), (-1.5, 0)],
    }
    if kind not in shapes:
        return Markup("")
    points = " ".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in shapes[kind])
    return tag("polygon", points=points, fill=fill)


def _legend(lines: Sequence[Line]) -> Markup:
    def entry(line: Line) -> Markup:
        key = tag("svg", _line(line, [(0, 6), (28, 6)]), viewBox="0 0 34 12", aria_hidden="true")
        return tag("li", key, tag("span", line.name))

    return tag("ul", *(entry(line) for line in lines), class_="legend")


def _axes(ticks: Sequence[float], y: _Scale, epochs: int, x: _Scale, x_label: str) -> list[Markup]:
    digits = max(1, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    step = max(1, math.ceil(epochs / 5))
    lines = [
        tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=_n(y(t)), y2=_n(y(t)), class_="grid")
        for t in ticks
    ]
    rows = [_note(f"{t:.{digits}f}", _LEFT - 6, y(t) + 4, "end") for t in ticks]
    columns = [
        _note(str(epoch), x(epoch), HEIGHT - 20, "middle")
        for epoch in sorted({1, *range(step, epochs + 1, step)})
    ]
    middle = (WIDTH + _LEFT - _RIGHT) / 2
    return [*lines, *rows, *columns, _note(x_label, middle, HEIGHT - 4, "middle")]


def _note(text: str, x: float, y: float, anchor: str) -> Markup:
    return tag("text", text, x=_n(x), y=_n(y), text_anchor=anchor, class_="soft")


def _bar(bar: Bar, x: _Scale, top: float) -> Markup:
    start, end = sorted((x(0), x(bar.value)))
    parts = [
        tag(
            "rect",
            x=_n(start),
            y=_n(top),
            width=_n(end - start),
            height=13,
            fill=f"var(--m{bar.style % 4})",
        )
    ]
    right = end
    if math.isfinite(bar.low) and math.isfinite(bar.high):
        middle = _n(top + 6.5)
        parts.append(
            tag(
                "line",
                x1=_n(x(bar.low)),
                x2=_n(x(bar.high)),
                y1=middle,
                y2=middle,
                class_="whisker",
            )
        )
        right = max(end, x(bar.high))
    parts.append(tag("text", f"{bar.label} {bar.value:.2f}", x=_n(right + 5), y=_n(top + 11)))
    return joined(*parts)


def _ticks(values: Sequence[float]) -> list[float]:
    """Some round numbers that hold the values; an axis of at least 0.1, not to magnify noise."""
    low, high = min(values), max(values)
    low, high = low - max(0, 0.1 - high + low) / 2, high + max(0, 0.1 - high + low) / 2
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(step * i, 10) for i in range(first, max(last, first + 1) + 1)]


def _check(title: str, values: Sequence[float]) -> None:
    if not values or not all(math.isfinite(v) for v in values):
        raise ValueError(
            f"A chart needs finite values, at least one. Found {list(values)[:5]} for `{title}`."
        )


def _n(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")
