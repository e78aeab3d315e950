"""The cells that the site's tables share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from equivox.bench.leaderboard import Line
from equivox.bench.notation import counted, p_text, signed
from equivox.bench.statistics import Difference
from equivox.report.page import joined, tag
from equivox.report.site.document import Cell
from equivox.report.site.links import lacking_of, method_page, runs_of

SURE = 0.05
"""The corrected p below which a difference to the best yardstick is called clear."""

MARKS = {"up": "▲ ", "down": "▼ "}

HEADS = (
    "metric", "over the best yardstick", "detectable", "p (Holm)", "over the best tuned yardstick",
    "over joint", "mechanism effect", "harm", "imbalance", "step", "FLOPs", "memory", "time",
    "runs",
)  # fmt: skip


def cells(line: Line, up: str, telling: bool = True) -> list[Cell]:
    """A line under `HEADS`.

    :param up: The way from the page to the site's root.
    :param telling: Say of an incomplete line that it is; not where all are.
    """
    over = line.over_yardstick
    return [
        _metric(line, up),
        difference(over, verdict(line)),
        number(math.nan if over is None else over.detectable, 3),
        Cell(p_text(line.p_holm), line.p_holm),
        difference(line.over_tuned),
        difference(line.over_joint),
        _mechanism(line),
        number(line.harm, 1),
        number(line.imbalance, 3),
        number(line.step, 2),
        number(line.flops, 2),
        number(line.memory, 2),
        number(line.time, 2),
        _runs(line, up, telling),
    ]


def name(line: Line, up: str) -> Cell:
    """The method, linked to its page, and whether it is a yardstick."""
    link = tag("a", line.title, href=up + method_page(line.method))
    which = "best yardstick" if line.over_yardstick is None else "yardstick"
    return Cell(joined(link, _small(which if line.yardstick else "")), line.title)


def kind(line: Line) -> str | None:
    """The class of a row."""
    return "yardstick" if line.yardstick else None


def verdict(line: Line) -> str | None:
    """ "up" or "down" where a method is clearly above or below the best yardstick."""
    if line.over_yardstick is None or not line.p_holm < SURE:
        return None
    return "up" if line.over_yardstick.mean > 0 else "down"


def difference(found: Difference | None, clear: str | None = None) -> Cell:
    """A mean difference with its interval below it."""
    if found is None:
        return Cell("", math.nan)
    mark, interval = MARKS.get(clear or "", ""), _small(ends(found.low, found.high))
    shown = tag("span", mark + signed(found.mean), interval, class_=clear)
    return Cell(shown, found.mean)


def number(value: float, digits: int) -> Cell:
    """A number, empty where it is not known."""
    return Cell("" if math.isnan(value) else f"{value:.{digits}f}", value)


def ends(low: float, high: float) -> str:
    """The ends of an interval; empty where one seed gives none."""
    if math.isnan(low):
        return ""
    return f"{low:z.3f} to {high:z.3f}".replace("-", "\N{MINUS SIGN}")


def _small(text: str) -> str:
    return tag("small", text) if text else ""


def settings(tuned: int) -> str:
    """How hyper-parameters were chosen, in words."""
    return counted(tuned, "trial") if tuned else "defaults"


def arguments(given: Mapping[str, Any]) -> str:
    """Hyper-parameters as they are set."""
    return ", ".join(f"{key}={value}" for key, value in given.items()) or "the defaults"


def _metric(line: Line, up: str) -> Cell:
    link = up + runs_of(line.data, line.method, line.tuned)
    shown = tag("a", f"{line.metric.mean:.3f}", href=link)
    interval = _small(ends(line.metric.low, line.metric.high))
    return Cell(joined(shown, interval), line.metric.mean)


def _mechanism(line: Line) -> Cell:
    found = line.mechanism
    if found is None:
        return Cell("", math.nan)
    interval = f"{ends(found.low, found.high)}, " if found.seeds > 1 else ""
    shown = joined(signed(found.mean), tag("small", f"{interval}against {line.reference}"))
    return Cell(shown, found.mean)


def _runs(line: Line, up: str, telling: bool) -> Cell:
    """How many, and what makes the line incomplete."""
    runs = up + runs_of(line.data, line.method, line.tuned)
    link = tag("a", counted(line.metric.seeds, "seed"), href=runs)
    failed = f"{line.failed} failed" if line.failed else ""
    why = up + lacking_of(line.data, line.tuned)
    told = telling and not line.complete
    incomplete = tag("a", "incomplete", href=why, title=line.lacking) if told else ""
    return Cell(joined(link, _small(failed), _small(incomplete)), float(line.metric.seeds))
