"""The frame of the site's pages, and its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from equivox.report import page
from equivox.report.page import Markup, tag
from equivox.report.site.links import INDEX, SCRIPT, STYLE

_NAVIGATION = {
    "Leaderboard": "",
    "Data sets": "#data-sets",
    "Methods": "#methods",
    "How to read": "#how-to-read",
}


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number or the words that it is sorted by."""

    shown: str
    value: float | str


@dataclass(frozen=True)
class Row:
    """A line of a table; `facts` are what filters ask for, by the filter's name."""

    head: Cell
    cells: Sequence[Cell]
    facts: Mapping[str, str]
    kind: str | None = None


def document(title: str, *body: str, up: str = "") -> str:
    """A page of the site.

    :param up: The way from the page to the site's root.
    """
    heads = [
        tag("meta", name="generator", content=generator()),
        tag("link", rel="icon", href="data:,"),
        tag("link", rel="stylesheet", href=up + STYLE),
        tag("script", src=up + SCRIPT, defer=""),
    ]
    entries = [tag("a", name, href=up + INDEX + anchor) for name, anchor in _NAVIGATION.items()]
    main = tag("main", tag("h1", title), *body)
    made = tag("footer", f"Made by {generator()}.")
    return page.document(title, heads, tag("nav", *entries, aria_label="Site"), main, made)


def generator() -> str:
    """Who made the page, by which an older site is known."""
    return f"equivox report {version('equivox')}"


def board(name: str, caption: str, heads: Sequence[str], rows: Sequence[Row]) -> Markup:
    """A table that stays one on a phone, where it is scrolled; the script makes it sortable.

    Columns in which no row shows anything are left out. The first head is that of the rows' heads.
    """
    kept = [i for i in range(len(heads) - 1) if any(row.cells[i].shown for row in rows)]
    shown = [tag("th", heads[0], scope="col")]
    shown += [tag("th", heads[i + 1], scope="col", class_=_kind(rows[0].cells[i])) for i in kept]
    table = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *shown)),
        tag("tbody", *(_row(row, kept) for row in rows)),
        id=name,
        class_="board",
    )
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(row: Row, kept: Sequence[int]) -> Markup:
    facts = {f"data_{name}": value for name, value in row.facts.items()}
    head = tag("th", row.head.shown, scope="row", data_value=_sorted_by(row.head))
    cells = [_cell(row.cells[i]) for i in kept]
    return tag("tr", head, *cells, class_=row.kind, **facts)


def _cell(cell: Cell) -> Markup:
    return tag("td", cell.shown, data_value=_sorted_by(cell), class_=_kind(cell))


def _kind(cell: Cell) -> str | None:
    return "words" if isinstance(cell.value, str) else None


def _sorted_by(cell: Cell) -> str:
    if isinstance(cell.value, str):
        return cell.value
    return "" if math.isnan(cell.value) else f"{cell.value:.6g}"
