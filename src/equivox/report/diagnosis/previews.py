"""Previews drawn: images, lines, strips of bars and words, each with what it is in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equivox.diagnosis.preview import Preview
from equivox.report.page import Markup, tag
from equivox.report.plots import modality_colour

WIDTH, HEIGHT = 160, 64
"""Of the coordinates within a drawing, which is scaled to its place."""


def cards(samples: Mapping[int, tuple[str, Mapping[str, Preview]]], modality: str) -> Markup:
    """A card for each sample: its number, what is said of it, and its modalities.

    :param samples: By number: a sentence, and the previews by modality.
    :param modality: The one that it is about.
    """
    made = (tag("li", *_card(number, *sample, modality)) for number, sample in samples.items())
    return tag("ul", *made, class_="cards")


def _card(
    number: int, said: str, shown: Mapping[str, Preview], modality: str
) -> tuple[Markup, Markup]:
    inputs = [
        tag(
            "figure",
            _drawn(x, f"{m} of sample {number}"),
            tag("figcaption", tag("strong", m) if m == modality else m),
        )
        for m, x in shown.items()
    ]
    heading = tag("p", tag("strong", f"Sample {number}"), tag("small", said))
    return heading, tag("div", *inputs, class_="inputs")


def _drawn(x: Preview, what: str) -> Markup:
    if x.kind == "image":
        return tag("img", src=x.content, alt=f"{what}, an image")
    if x.kind == "signal":
        return _lines(x.content, what)
    if x.kind == "vector":
        return _bars(x.content, what)
    return tag("blockquote", x.content or "no words")


def _lines(channels: Sequence[Sequence[float]], what: str) -> Markup:
    low = min(min(channel) for channel in channels)
    high = max(max(channel) for channel in channels)

    def points(channel: Sequence[float]) -> str:
        step = WIDTH / max(len(channel) - 1, 1)
        return " ".join(f"{i * step:.1f},{_y(x, low, high):.1f}" for i, x in enumerate(channel))

    drawn = [
        tag("polyline", points=points(channel), fill="none", stroke=f"var({modality_colour(i)})")
        for i, channel in enumerate(channels)
    ]
    count = f"{len(channels)} signals" if len(channels) > 1 else "a signal"
    return _svg(f"{what}, {count} from {low:g} to {high:g}", drawn)


def _bars(values: Sequence[float], what: str) -> Markup:
    low, high = min(0.0, *values), max(0.0, *values)
    step = WIDTH / len(values)
    zero = _y(0.0, low, high)
    path = "".join(
        f"M{(i + 0.5) * step:.1f} {zero:.1f}V{_y(x, low, high):.1f}" for i, x in enumerate(values)
    )
    drawn = tag(
        "path",
        d=path,
        stroke=f"var({modality_colour(0)})",
        style=f"stroke-width:{max(step * 0.8, 0.6):.1f}",
    )
    return _svg(f"{what}, {len(values)} values from {min(values):g} to {max(values):g}", [drawn])


def _y(value: float, low: float, high: float) -> float:
    return 2 + (HEIGHT - 4) * (1 - (value - low) / (high - low or 1.0))


def _svg(what: str, drawn: Sequence[Markup]) -> Markup:
    box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", *drawn, viewBox=box, preserveAspectRatio="none", role="img", aria_label=what)
