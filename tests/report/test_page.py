"""Pages: escaped, whole, without anything from outside."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from equivox.report.page import Markup, code, escaped, page, save_all, table, tag

HOSTILE = "<script>alert('x')</script> & \"more\""


class Strict(HTMLParser):
    """Notes tags, and that each is closed by its own."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "hr", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Strict:
    parser = Strict()
    parser.feed(text)
    assert not parser.open
    return parser


def test_text_and_attributes_are_escaped_wherever_they_enter() -> None:
    body = [
        tag("p", HOSTILE, title=HOSTILE),
        table(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]]),
        code(HOSTILE),
    ]
    whole = parsed(page(HOSTILE, *body))
    assert "script" not in whole.seen
    assert ("title", HOSTILE) in whole.attributes
    assert ("data-label", HOSTILE) in whole.attributes


def test_markup_is_not_escaped_twice() -> None:
    assert tag("p", tag("b", "a & b")) == "<p><b>a &amp; b</b></p>"
    assert escaped(Markup("&lt;")) == "&lt;"


def test_joining_markup_with_text_by_hand_is_escaped_again() -> None:
    # `Markup + str` is plain text: what slipped in cannot pass for markup.
    assert "<script>" not in tag("p", tag("b", "x") + HOSTILE)


def test_a_page_needs_nothing_from_outside_and_runs_nothing() -> None:
    text = page("Title", tag("p", "words"))
    whole = parsed(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(whole.seen)
    assert "url(" not in text and "@import" not in text and "http" not in text
    for need in ("prefers-color-scheme: dark", "@media print", "width=device-width", 'lang="en"'):
        assert need in text


def test_rows_have_the_length_of_the_header() -> None:
    with pytest.raises(ValueError, match="2 cells of the header"):
        table("", ["a", "b"], [["1", "2"], ["only"]])


def test_saving_makes_folders_and_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    save_all({path: "first"})
    save_all({path: "second"})
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == ["page.html"]


def test_a_failed_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    save_all({path: "first"})

    def full(source: object, target: object) -> None:
        raise OSError(f"No space left for {source} at {target}")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_all({path: "second"})
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["page.html"]
