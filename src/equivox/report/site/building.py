"""Writing a site: all of it or, where something fails, nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from equivox.bench import tables
from equivox.bench.latex import latex
from equivox.report.site import index, of_data, of_method
from equivox.report.site.content import Content
from equivox.report.site.links import INDEX, SCRIPT, STYLE, data_file, method_file
from equivox.report.site.strip import Strips

_MARK = 'name="generator" content="equivox report'
"""By which an older site is known: only such a one is replaced."""


def build(out: Path, site: Path) -> Path:
    """Make the site of a comparison, in place of an older one; returns its first page.

    :param out: The comparison's folder.
    :param site: The site's folder: a new or an empty one, or an older site.
    :raises FileNotFoundError: Where there is no comparison.
    :raises FileExistsError: Where something else lies in `site`.
    :raises ValueError: Where there are no finished runs, or something in their folders is damaged.
    :raises OSError: Where it cannot be written. The older site is kept, whatever is raised.
    """
    site = site.expanduser().absolute()
    _check_free(site)
    _put(pages(Content(out)), site)
    return site / INDEX


def pages(content: Content) -> dict[str, str]:
    """Every file of the site by its path."""
    strips = {key: Strips(board) for key, board in content.boards.items()}
    texts = {
        "tables/table.csv": tables.table(content.boards),
        "tables/table.md": tables.markdown(content.boards),
        "tables/table.tex": latex(content.boards),
    }
    return {
        INDEX: index.page(content, list(texts)),
        **{data_file(data): of_data.page(content, data, strips) for data in content.data},
        **{method_file(m): of_method.page(content, m, strips) for m in content.methods},
        **texts,
        STYLE: _packaged("style.css") + _packaged("site/site.css"),
        SCRIPT: _packaged("site/site.js"),
    }


def _packaged(name: str) -> str:
    return (files("equivox.report") / name).read_text(encoding="utf-8")


def _check_free(site: Path) -> None:
    if not site.exists() or _is_site(site) or (site.is_dir() and not any(site.iterdir())):
        return
    raise FileExistsError(
        f"A site should have a folder of its own. Found something else in `{site}`. Choose another "
        "by `--out`."
    )


def _is_site(folder: Path) -> bool:
    first = folder / INDEX
    return first.is_file() and _MARK in first.read_text(encoding="utf-8", errors="replace")


def _put(texts: Mapping[str, str], site: Path) -> None:
    """Write beside the older site; it goes when all is written."""
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=f".{site.name}.") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        for name, text in texts.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if site.exists():
            site.rename(old)
        try:
            new.rename(site)
        except OSError:
            if old.exists():
                old.rename(site)
            raise
