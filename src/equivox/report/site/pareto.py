"""The metric of a board's methods against what they cost."""

from __future__ import annotations

import math

from equivox.bench.cost import pareto as front
from equivox.bench.leaderboard import Leaderboard, Line
from equivox.report.page import Markup
from equivox.report.site.links import method_page
from equivox.report.site.scatter import Point, scatter
from equivox.report.site.strip import lowest

_LABELS = {"step": "time of a step", "flops": "operations of a step", "time": "time of the run"}


def pareto(board: Leaderboard, up: str, title: str = "") -> Markup:
    """A figure of one board; empty where no costs are known.

    :param up: The way from the page to the site's root.
    """
    for cost in ("step", "flops", "time"):
        if known := [line for line in board.lines if math.isfinite(getattr(line, cost))]:
            points = [_point(line, getattr(line, cost), up) for line in known]
            low = lowest([line.metric.mean for line in known])
            label = f"{_LABELS[cost]}, joint training = 1"
            return scatter(title, label, points, front(known, cost), low)
    return Markup("")


def _point(line: Line, cost: float, up: str) -> Point:
    link = up + method_page(line.method)
    return Point(line.method, line.title, cost, line.metric.mean, line.yardstick, link)
