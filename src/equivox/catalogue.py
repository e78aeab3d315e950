"""The catalogue: every paper of the field, and which of them are here.

>>> [entry["name"] for entry in entries() if entry["key"] == "ogm_ge"]
['OGM-GE']
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from equivox.errors import nearest

if TYPE_CHECKING:
    from equivox.method import Method

Entry = dict[str, Any]

_FIELDS = ("key", "name", "title", "venue", "url", "category")


def papers() -> list[Entry]:
    """The published methods, implemented or not: key, name, title, venue, url, category."""
    text = files("equivox").joinpath("catalogue.json").read_text(encoding="utf-8")
    return [{field: paper[field] for field in _FIELDS} for paper in json.loads(text)]


def entries(category: str | None = None) -> list[Entry]:
    """Every paper, then the registered methods that are none: yardsticks and other packages'.

    `implemented` and `fidelity` (None where not implemented) are those of the registry.

    Raises ValueError for an unknown category, with the nearest known one.
    """
    from equivox import methods

    registered = {name: methods.get(name) for name in methods.names()}
    published = papers()
    known = {paper["key"] for paper in published}
    own = [_described(key, method) for key, method in registered.items() if key not in known]
    found = [paper | _state(registered.get(paper["key"])) for paper in published + own]
    return found if category is None else _of(category, found)


def _of(category: str, found: list[Entry]) -> list[Entry]:
    known = {entry["category"] for entry in found}
    if category not in known:
        raise ValueError(
            f"`category` should be a known one. Found `{category!r}`. {nearest(category, known)}"
        )
    return [entry for entry in found if entry["category"] == category]


def _described(key: str, method: type[Method]) -> Entry:
    """What is known of a method that no paper of the catalogue describes."""
    title = (method.__doc__ or "").strip().partition("\n")[0]
    return {
        "key": key,
        "name": method.__name__,
        "title": title,
        "venue": None,
        "url": None,
        "category": method.category,
    }


def _state(method: type[Method] | None) -> Entry:
    implemented = method is not None
    return {"implemented": implemented, "fidelity": method.fidelity if method else None}
