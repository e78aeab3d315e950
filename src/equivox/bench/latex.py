"""Leaderboards as LaTeX: one table each, in the manner of `booktabs`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from equivox.bench.leaderboard import Key, Leaderboard
from equivox.bench.tables import DAGGER, heading, lacking, main_table, opponent

_ESCAPES = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "\N{MINUS SIGN}": "$-$",
    "+": "$+$",
    DAGGER: r"$^\dagger$",
}


def latex(boards: Mapping[Key, Leaderboard]) -> str:
    """The main table of every board; the preamble needs `booktabs` and `graphicx`."""
    return "\n".join(_table(board, *key) for key, board in boards.items())


def _table(board: Leaderboard, data: str, tuned: int) -> str:
    """A table environment, yardsticks in italics, incomplete lines with a dagger."""
    heads, *rows = main_table(board)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(_caption(board, data, tuned))}}}",
        rf"\label{{tab:{re.sub(r'[^a-zA-Z0-9]+', '-', data)}-{tuned}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        _row(heads),
        r"\midrule",
        *(_row(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(board: Leaderboard, data: str, tuned: int) -> str:
    reasons = "; ".join(lacking(board))
    said = [
        f"{heading(data, tuned)}.",
        opponent(board).replace("`", ""),
        "Means over seeds ± half the 95 % interval, the longer half where they differ; differences "
        "are paired by seed.",
        f"{DAGGER} incomplete: {reasons}." if reasons else "",
    ]
    return " ".join(filter(None, said))


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(text: str) -> str:
    if not text.startswith("*"):
        return escaped(text)
    _, name, mark = text.split("*")
    return rf"\emph{{{escaped(name)}}}{escaped(mark)}"


def escaped(text: str) -> str:
    r"""Text as LaTeX sets it.

    >>> print(escaped("ogm_ge: 100 %"))
    ogm\_ge: 100 \%
    """
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
