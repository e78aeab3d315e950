"""Plotly figures of a page: the data here, drawn by `plots.js` in the page's colours.

Colours are the page's variables, `var(--m0)`, which the script looks up; every series also differs
in mark, dashes or pattern. Text that users gave is escaped, because Plotly reads it as markup.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from equivox.diagnosis.metric import Estimate
from equivox.report.numbers import ends_of, said_of
from equivox.report.page import Markup, joined, tag

LONGEST = 20
"""Longer names are cut on axes and in legends, for phones; tables have them whole."""

LEVEL = 0.05
"""What an axis shows above and below values that are all alike: Plotly would show 1."""

MODALITY_COLOURS = 8
_PATTERNS = ("", "/", ".", "x")
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")


@dataclass(frozen=True)
class Plot:
    """One figure: its heading, what its axis shows, what it says in words, and Plotly's input."""

    title: str
    label: str
    alt: str
    height: int
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """Values of one thing, by row or by place on the x-axis; `colour` is a variable of the page."""

    name: str
    values: Sequence[Estimate | float | None]
    colour: str


def modality_colour(number: int) -> str:
    """The colour of a modality, by its place; from the ninth on they repeat."""
    return f"--m{number % MODALITY_COLOURS}"


def bars(
    title: str,
    label: str,
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    colours: Sequence[str] = (),
    line: float | None = None,
) -> Plot:
    """Horizontal bars with their intervals, from above; several series lie below one another.

    :param colours: One a row, for a single series.
    :param line: A value to compare with.
    """
    data = [_bar(s, rows, i, len(series), colours) for i, s in enumerate(series)]
    legend = [s.name for s in series] if len(series) > 1 else []
    height = 34 + _legend_height(legend) + len(rows) * (16 * len(series) + 14)
    layout = _layout(height, legend) | {"bargap": 0.3, "yaxis": _rows(rows)}
    return Plot(title, label, _alt(title, label, rows, series), height, data, _with(layout, line))


def dots(title: str, label: str, rows: Sequence[str], series: Series, line: float = 0.0) -> Plot:
    """Marks with their intervals, one a row, and a line at a value to compare with."""
    x, error, said = _values(series, rows)
    data = {
        "type": "scatter", "mode": "markers", "x": x, "y": list(range(len(rows))),
        "error_x": error, "marker": {"color": f"var({series.colour})", "size": 9},
        "hovertext": said, "hoverinfo": "text",
    }  # fmt: skip
    height, alt = 34 + 24 * len(rows), _alt(title, label, rows, [series])
    layout = _with(_layout(height, []) | {"yaxis": _rows(rows)}, line)
    return Plot(title, label, alt, height, [data], layout)


def lines(
    title: str,
    label: str,
    places: Sequence[float],
    series: Sequence[Series],
    x_label: str,
    *,
    thin: Sequence[Series] = (),
    logarithmic: bool = False,
    span: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> Plot:
    """Lines with marks, and thin dotted ones of the same colours without a name in the legend.

    :param span: Of the values that are shown, for figures that are compared.
    :param marks: Places of upright lines, each with its colour.
    """
    data = [_line(s, places, i) for i, s in enumerate(series)] + [_thin(s, places) for s in thin]
    legend = [s.name for s in series]
    height = 230 + _legend_height(legend)
    layout = _layout(height, legend)
    layout["xaxis"] |= {
        "title": {"text": x_label, "standoff": 4}, "showgrid": False, "zeroline": False
    }  # fmt: skip
    values = [x for trace in data for x in trace["y"] if x is not None]
    layout["yaxis"] |= _powers(values) if logarithmic else {"nticks": 6}
    if places and all(isinstance(x, int) for x in places):
        layout["xaxis"] |= {"tick0": places[0], "dtick": -((places[0] - places[-1]) // 6) or 1}
    if span is None and not logarithmic and values and max(values) - min(values) < 1e-3:
        span = min(values) - LEVEL, max(values) + LEVEL
    if span is not None:
        margin = 0.05 * (span[1] - span[0]) or 0.01
        layout["yaxis"]["range"] = [span[0] - margin, span[1] + margin]
    layout["shapes"] = [_upright(place, f"var({colour})") for place, colour in marks]
    return Plot(title, label, _ends(title, label, series), height, data, layout)


def drawn(plot: Plot) -> Markup:
    """The figure's heading, its place of fixed height, and the data for the script."""
    heading = tag("p", plot.title, " ", tag("small", plot.label))
    place = tag(
        "div", class_="plot", role="img", aria_label=plot.alt, style=f"height:{plot.height}px"
    )
    made = {"data": plot.data, "layout": plot.layout}
    return tag("div", heading, place, _script(made), class_="chart")


def scripts() -> Markup:
    """Plotly itself, packed, and the script that draws; once a page, after all figures."""
    draw = Markup((files("equivox.report") / "plots.js").read_text(encoding="utf-8"))
    library = tag("script", Markup(_library()), type="text/plain", id="plotly")
    return joined(library, tag("script", draw))


@cache
def _library() -> str:
    """Plotly in base64 of gzip: two fifths of its size."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _script(made: Any) -> Markup:
    # Within a script nothing is unescaped, and `</script>` or `<!--` would end or hide it.
    written = json.dumps(made, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return tag("script", Markup(written), type="application/json")


# ── Plotly's input ──────────────────────────────────────────────────────────────────────────────


def _layout(height: int, legend: Sequence[str]) -> dict[str, Any]:
    axis = {
        "gridcolor": "var(--line)", "zerolinecolor": "var(--soft)", "linecolor": "var(--line)",
        "automargin": True, "fixedrange": True, "zeroline": True,
    }  # fmt: skip
    return {
        "height": height,
        "margin": {"l": 8, "r": 14, "t": 6 + _legend_height(legend), "b": 28},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--text)"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {
            "bgcolor": "var(--tint)", "bordercolor": "var(--soft)", "font": {"color": "var(--text)"}
        },
        "dragmode": False,
        "showlegend": bool(legend),
        "legend": {
            "orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top",
            "itemclick": False, "itemdoubleclick": False, "traceorder": "normal",
        },
        "xaxis": axis | {"nticks": 6},
        "yaxis": axis,
    }  # fmt: skip


def _powers(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with a few numbers: Plotly's overlap where there is one decade."""
    axis: dict[str, Any] = {"type": "log", "tickformat": "~g", "nticks": 5}
    shown = [math.log10(x) for x in values if x > 0]
    if not shown:
        return axis
    low, high = min(shown), max(shown)
    every = max(1, round((high - low) / 4))
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1, every)
    ticks = [step * 10.0**power for power in powers for step in steps]
    within = sum(low <= math.log10(tick) <= high for tick in ticks)
    return axis | {"tickvals": ticks} if within > 1 else axis


def _rows(rows: Sequence[str]) -> dict[str, Any]:
    """An axis of numbered rows: names may be alike once they are cut, and look like numbers."""
    return {
        "tickvals": list(range(len(rows))), "ticktext": [_short(row) for row in rows],
        "range": [len(rows) - 0.5, -0.5], "automargin": True, "fixedrange": True,
        "showgrid": False, "zeroline": False, "ticklabelstandoff": 4,
    }  # fmt: skip


def _with(layout: dict[str, Any], line: float | None) -> dict[str, Any]:
    if line is None or not math.isfinite(line):
        return layout
    return layout | {"shapes": [_upright(line, "var(--text)")]}


def _upright(place: float, colour: str) -> dict[str, Any]:
    """A dotted line from below to above."""
    stroke = {"color": colour, "width": 1.5, "dash": "dot"}
    ends = {"x0": place, "x1": place, "y0": 0, "y1": 1}
    return {"type": "line", "xref": "x", "yref": "paper", "line": stroke} | ends


def _bar(
    series: Series, rows: Sequence[str], number: int, count: int, colours: Sequence[str]
) -> dict[str, Any]:
    x, error, said = _values(series, rows)
    filled = [f"var({c})" for c in colours] or f"var({series.colour})"
    marker: dict[str, Any] = {"color": filled}
    if count > 1:
        shape = _PATTERNS[number % len(_PATTERNS)]
        marker["pattern"] = {
            "shape": shape, "size": 5, "fillmode": "overlay", "fgcolor": "var(--page)"
        }  # fmt: skip
    return {
        "type": "bar", "orientation": "h", "name": _short(series.name), "x": x,
        "y": list(range(len(rows))), "error_x": error, "marker": marker, "hovertext": said,
        "hoverinfo": "text", "textposition": "none",
    }  # fmt: skip


def _values(series: Series, rows: Sequence[str]) -> tuple[list[Any], dict[str, Any], list[str]]:
    """The values, their intervals as Plotly has them, and what is said when they are pointed at."""
    found = [ends_of(x) for x in series.values]
    error: dict[str, Any] = {
        "type": "data", "symmetric": False, "color": "var(--text)", "thickness": 1.5, "width": 3,
        "array": [_gap(high, value) for value, _, high in found],
        "arrayminus": [_gap(value, low) for value, low, _ in found],
    }  # fmt: skip
    error["visible"] = any(error["array"]) or any(error["arrayminus"])
    name = f", {series.name}" if series.name else ""
    said = [
        _escaped(f"{row}{name}: {said_of(x)}") for row, x in zip(rows, series.values, strict=True)
    ]
    return [value for value, _, _ in found], error, said


def _line(series: Series, places: Sequence[float], number: int) -> dict[str, Any]:
    colour = f"var({series.colour})"
    symbol = _SYMBOLS[number % len(_SYMBOLS)]
    return _traced(series, places) | {
        "mode": "lines+markers", "name": _short(series.name),
        "line": {"color": colour, "width": 2, "dash": _DASHES[number % len(_DASHES)]},
        "marker": {"color": colour, "symbol": symbol, "size": 6},
    }  # fmt: skip


def _thin(series: Series, places: Sequence[float]) -> dict[str, Any]:
    line = {"color": f"var({series.colour})", "width": 1, "dash": "dot"}
    return _traced(series, places) | {"mode": "lines", "showlegend": False, "line": line}


def _traced(series: Series, places: Sequence[float]) -> dict[str, Any]:
    return {
        "type": "scatter", "connectgaps": True,
        "x": list(places), "y": [ends_of(x)[0] for x in series.values],
        "hovertext": [_escaped(f"{series.name}: {said_of(x)}") for x in series.values],
        "hoverinfo": "text",
    }  # fmt: skip


def _gap(a: float | None, b: float | None) -> float:
    return 0.0 if a is None or b is None else max(a - b, 0.0)


def _short(name: str) -> str:
    cut = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    return _escaped(cut)


def _escaped(text: str) -> str:
    """Text that Plotly reads as it is: it knows no `&quot;`, and quotation marks mean nothing."""
    return html.escape(text, quote=False)


def _legend_height(names: Sequence[str]) -> int:
    """Of the lines that the legend takes on a phone."""
    if not names:
        return 0
    width = max(min(len(name), LONGEST) for name in names) * 7 + 45
    return 22 * math.ceil(len(names) / max(1, 330 // width)) + 4


def _alt(title: str, label: str, rows: Sequence[str], series: Sequence[Series]) -> str:
    said = "; ".join(
        f"{row}: "
        + ", ".join(f"{s.name} {said_of(s.values[i])}".strip() for s in series if i < len(s.values))
        for i, row in enumerate(rows)
    )
    return f"{title}: {label}. {said}."


def _ends(title: str, label: str, series: Sequence[Series]) -> str:
    def last(values: Sequence[Estimate | float | None]) -> str:
        return said_of(next((x for x in reversed(values) if ends_of(x)[0] is not None), None))

    said = ", ".join(f"{s.name} {last(s.values)}" for s in series)
    return f"{title}: {label}. At the end {said}"
