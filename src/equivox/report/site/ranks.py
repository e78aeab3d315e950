"""The critical-difference diagram, a row a method: ranks as marks, cliques as bars beside them."""

from __future__ import annotations

from collections.abc import Callable

from equivox.bench.leaderboard import is_yardstick, title
from equivox.bench.notation import p_text
from equivox.bench.ranking import Ranking
from equivox.report.page import Markup, tag

_Scale = Callable[[float], float]

WIDTH = 420
_LABELS, _ROW, _TOP = 160, 18, 42
_LANE, _LANES = 6, 90
_LONGEST = 21
"""Letters of a name that have room."""


def diagram(found: Ranking) -> Markup:
    """The diagram; the methods that ran on all data sets, best first."""
    names = list(found.ranks)
    lane = min(_LANE, _LANES / max(1, len(found.cliques)))
    right = WIDTH - 10 - lane * len(found.cliques)
    worst = max(2.0, *found.ranks.values())

    def x(rank: float) -> float:
        return round(_LABELS + (right - _LABELS) * (rank - 1) / (worst - 1), 1)

    rows = [_row(i, name, found.ranks[name], x) for i, name in enumerate(names)]
    bars = [
        _bar(right + 10 + lane * i, names.index(clique[0]), names.index(clique[-1]))
        for i, clique in enumerate(found.cliques)
    ]
    said = ", ".join(f"{title(name)} {rank:.1f}" for name, rank in found.ranks.items())
    return tag(
        "svg",
        *_axis(worst, x),
        *_scale(found.critical, worst, x),
        *rows,
        *bars,
        viewBox=f"0 0 {WIDTH} {_TOP + _ROW * len(names) + 4}",
        role="img",
        aria_label=f"Average ranks, critical difference {found.critical:.1f}: {said}.",
        class_="ranks",
    )


def caption(found: Ranking) -> str:
    """How to read it, and what it rests on."""
    out = ", ".join(title(name) for name in found.left_out)
    also = f" Not on all of them, so not ranked: {out}." if out else ""
    rough = " With so few data sets the test is rough." if len(found.data) <= 10 else ""
    p = p_text(found.friedman)
    friedman = p and f" Friedman's test: p {p if p.startswith('<') else f'= {p}'}."
    return (
        f"Average rank over {len(found.data)} data sets, the best at 1; squares are yardsticks. "
        f"Methods beside one bar cannot be told apart: their ranks differ by less than "
        f"{found.critical:.1f}, Nemenyi's critical difference at 5 %.{friedman}{rough}{also}"
    )


def _row(number: int, name: str, rank: float, x: _Scale) -> Markup:
    y = _TOP + _ROW * number + _ROW / 2
    whole = title(name)
    label = whole if len(whole) <= _LONGEST else whole[: _LONGEST - 1] + "…"
    kind = "yardstick" if is_yardstick(name) else "other"
    mark = (
        tag("rect", x=x(rank) - 4, y=y - 4, width=8, height=8, class_=kind)
        if kind == "yardstick"
        else tag("circle", cx=x(rank), cy=y, r=4, class_=kind)
    )
    return tag(
        "g",
        tag("title", f"{whole}: {rank:.2f}"),
        tag("line", x1=_LABELS, x2=x(rank), y1=y, y2=y, class_="grid"),
        tag("text", label, x=_LABELS - 8, y=y + 4, text_anchor="end"),
        mark,
    )


def _axis(worst: float, x: _Scale) -> list[Markup]:
    step = max(1, round(worst / 5))
    return [
        tag("text", str(rank), x=x(rank), y=_TOP - 4, text_anchor="middle", class_="soft")
        for rank in [1, *range(1 + step, int(worst) + 1, step)]
    ]


def _scale(critical: float, worst: float, x: _Scale) -> list[Markup]:
    """The critical difference as a length, where it fits."""
    length = x(1 + critical) - x(1)
    if not length < x(worst) - x(1):
        return []
    line = tag("line", x1=x(1), x2=x(1) + length, y1=8, y2=8, class_="clique")
    return [line, tag("text", "critical", x=x(1) + length + 6, y=12, class_="soft")]


def _bar(place: float, first: int, last: int) -> Markup:
    x = round(place, 1)
    y1, y2 = (_TOP + _ROW * i + (4 if i == first else _ROW - 4) for i in (first, last))
    return tag("line", x1=x, x2=x, y1=y1, y2=y2, class_="clique")
