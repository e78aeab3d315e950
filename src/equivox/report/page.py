"""HTML that is escaped by construction, and the page around it."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

Attribute = str | int | float | None


class Markup(str):
    """Text that is markup already, made by `tag`; any other text is escaped where it enters."""

    __slots__ = ()


def escaped(child: str) -> Markup:
    """Markup as it is, text with `& < > " '` escaped.

    >>> escaped("R&D"), escaped(tag("b", "R&D"))
    ('R&amp;D', '<b>R&amp;D</b>')
    """
    return child if isinstance(child, Markup) else Markup(html.escape(child))


def tag(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """One element, with children and attributes escaped.

    An attribute's underscores become hyphens and a last one falls away (`class_`); None leaves the
    attribute out.

    >>> tag("p", "a < b", class_="note", data_label="x")
    '<p class="note" data-label="x">a &lt; b</p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(x))}"'
        for key, x in attributes.items()
        if x is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


_VOID = ("br", "hr", "img", "input", "link", "meta")


def joined(*children: str) -> Markup:
    """Pieces one after another, text among them escaped."""
    return Markup("".join(escaped(child) for child in children))


def marked(text: str) -> Markup:
    """Text in which words between backticks are code.

    >>> marked("`a` < b")
    '<code>a</code> &lt; b'
    """
    parts = text.split("`")
    return joined(*(tag("code", x) if i % 2 else x for i, x in enumerate(parts)))


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A table that turns into one card a row on a narrow screen; first cells name their rows.

    :raises ValueError: Where a row is not as long as the header.
    """
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(
            f"Every row should have the {len(header)} cells of the header. Found {wrong[0]!r}."
        )
    head = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", head),
        tag("tbody", *(_row(header, row) for row in rows)),
    )


def _row(header: Sequence[str], row: Sequence[str]) -> Markup:
    cells = [
        tag("td", tag("span", cell), data_label=label)
        for label, cell in zip(header[1:], row[1:], strict=True)
    ]
    return tag("tr", tag("th", row[0], scope="row"), *cells)


def code(text: str) -> Markup:
    """A block to copy; it can be scrolled with the keyboard."""
    return tag("pre", tag("code", text), tabindex="0")


def page(title: str, *body: str) -> str:
    """A whole page: one file that needs no network and runs no script."""
    style = Markup((files("equivox.report") / "style.css").read_text(encoding="utf-8"))
    return document(title, [tag("style", style)], tag("main", tag("h1", title), *body))


def document(title: str, heads: Sequence[Markup], *body: str) -> str:
    """An HTML document.

    :param heads: What its head holds besides the title.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        *heads,
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def save_all(texts: Mapping[Path, str]) -> None:
    """Write files, making the folders above them, and put them in place when all are whole.

    :raises OSError: Where one of them cannot be written; what was there before is still there.
    """
    for path in texts:
        if path.is_dir():
            raise IsADirectoryError(f"A file should be written. Found the folder `{path}`.")
    written: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
            written[Path(temporary)] = path
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
        for part, path in written.items():
            os.replace(part, path)
    finally:
        for part in written:
            part.unlink(missing_ok=True)
