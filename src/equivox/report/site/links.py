"""Where things are on the site: the paths of its pages, and the anchors of the runs in them.

All are relative to the site's root; a page in a folder leads there by `ROOT`.
"""

from __future__ import annotations

from urllib.parse import quote

from equivox.bench.jobs import Choice

INDEX = "index.html"
STYLE, SCRIPT = "assets/site.css", "assets/site.js"
ROOT = "../"
"""The way from the page of a method or a data set to the site's root."""


def data_file(data: str) -> str:
    """The file of a data set's page, by its label."""
    return f"data/{Choice.parse(data).folder}.html"


def method_file(method: str) -> str:
    """The file of a method's page, by its label."""
    return f"methods/{Choice.parse(method).folder}.html"


def data_page(data: str) -> str:
    """The link to a data set's page."""
    return quote(data_file(data))


def method_page(method: str) -> str:
    """The link to a method's page."""
    return quote(method_file(method))


def anchor(name: str, tuned: int) -> str:
    """A part of a data set's page that each of its boards has.

    >>> anchor("runs", 0), anchor("runs", 4)
    ('runs', 'runs-tuned-4')
    """
    return f"{name}-tuned-{tuned}" if tuned else name


def runs_anchor(method: str, tuned: int) -> str:
    """The list of a method's runs, on the page of the data set.

    >>> runs_anchor("ogm_ge:alpha=0.5", 4)
    'runs-ogm_ge_alpha=0.5-tuned-4'
    """
    return anchor(f"runs-{Choice.parse(method).folder}", tuned)


def runs_of(data: str, method: str, tuned: int) -> str:
    """The link to that list."""
    return f"{data_page(data)}#{quote(runs_anchor(method, tuned))}"


def lacking_of(data: str, tuned: int) -> str:
    """The link to what makes lines of a board incomplete."""
    return f"{data_page(data)}#{anchor('lacking', tuned)}"
