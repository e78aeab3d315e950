"""Charts: where values land, what is said for those who cannot see, what is refused."""

from __future__ import annotations

import math
import re

import pytest

from equivox.report.figures import HEIGHT, WIDTH, Bar, Line, bar_chart, line_chart


def points(svg: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]+)" fill="none"', svg)
    assert found is not None
    pairs = [pair.split(",") for pair in found[1].split()]
    return [(float(x), float(y)) for x, y in pairs]


def test_higher_values_are_higher_and_epochs_run_to_the_right() -> None:
    drawn = points(line_chart("t", [Line("a", [0.5, 0.9, 0.7], 1)], "accuracy"))
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert x0 < x1 < x2 and x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in drawn)


def test_an_axis_does_not_magnify_noise() -> None:
    heights = [y for _, y in points(line_chart("t", [Line("a", [0.950, 0.951], 1)], "accuracy"))]
    assert abs(heights[0] - heights[1]) < 5


def test_charts_with_the_same_limits_have_the_same_scale() -> None:
    def height(values: list[float]) -> float:
        return points(line_chart("t", [Line("a", values, 1)], "accuracy", limits=(0.2, 0.9)))[0][1]

    assert height([0.5, 0.6]) == height([0.5, 0.3])


def test_one_epoch_and_equal_values_can_be_drawn() -> None:
    assert len(points(line_chart("t", [Line("a", [0.5], 1)], "accuracy"))) == 1
    assert "polyline" in line_chart("t", [Line("a", [0.0, 0.0], 0)], "accuracy")


def test_alternative_text_tells_the_numbers() -> None:
    lines = line_chart("hard", [Line("joint", [0.7, 0.8], 1)], "probe")
    assert 'aria-label="hard: probe over 2 epochs; at the end joint 0.800."' in lines
    bars = bar_chart("shares", [("joint", [Bar("hard", 0.12, 0.1, 0.14, 0)])], "Shapley value")
    assert "joint: hard 0.120" in bars and 'role="img"' in bars


def test_series_differ_in_more_than_colour() -> None:
    svg = line_chart("t", [Line(str(i), [0.1 * i, 0.2], i) for i in range(6)], "accuracy")
    legend = svg[svg.index('class="legend"') :]
    forms = [re.sub(r"var\(--s\d\)", "", entry) for entry in legend.split("<li>")[1:]]
    assert len({re.sub(r"<span>.*", "", form) for form in forms}) == 6


def test_names_are_escaped() -> None:
    for svg in (
        line_chart("<b>", [Line("<i>", [0.1, 0.2], 1)], "<u>"),
        bar_chart("<b>", [("<i>", [Bar("<u>", 0.1, 0.0, 0.2, 0)])], "<s>"),
    ):
        assert not re.search(r"<[bius]>", svg)


def test_negative_bars_reach_left_of_zero_and_unknown_intervals_are_left_out() -> None:
    svg = bar_chart(
        "t", [("g", [Bar("a", -0.1, math.nan, math.nan, 0), Bar("b", 0.3, 0.2, 0.4, 1)])], "v"
    )
    rects = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    ends = [float(x) + float(w) for x, w in rects]
    assert ends[0] == pytest.approx(float(rects[1][0]), abs=0.11)
    assert svg.count('class="whisker"') == 1


@pytest.mark.parametrize("values", [[], [0.5, math.nan]])
def test_values_have_to_be_finite(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        line_chart("t", [Line("a", values, 0)], "accuracy")
