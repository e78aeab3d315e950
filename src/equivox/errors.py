"""What an error says beyond the rule and what was found."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest known name, or with all of them where none is near.

    >>> nearest("ogm", ["ogm_ge", "agm", "pmr"])
    'Did you mean `ogm_ge`?'
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean `{close[0]}`?" if close else f"Known are: {', '.join(known)}."
