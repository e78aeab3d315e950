"""What a comparison lacks to be believed, and the commands that make it."""

from __future__ import annotations

from collections import Counter

from equivox.bench.leaderboard import ENOUGH, Leaderboard, is_yardstick
from equivox.bench.notation import counted
from equivox.methods import names
from equivox.report.page import Markup, code, tag
from equivox.report.site.commands import compare
from equivox.report.site.content import Content

TRIALS = 8
"""Of a search for hyper-parameters, where there was none yet."""


def incomplete(content: Content) -> Markup:
    """Which lines cannot be believed yet, why, and the commands that make the runs they lack."""
    lines = [line for line in content.lines if not line.complete]
    if not lines:
        return Markup("")
    reasons = Counter(reason for line in lines for reason in line.lacking.split("; "))
    every, some = len(content.lines), len(lines)
    few = f"{some} of {every} lines {'is' if some == 1 else 'are'} not"
    which = "No line is" if some == every else few
    often = "; ".join(f"{why} ({counted(n, 'line')})" for why, n in reasons.most_common(3))
    said = f"{which} complete yet: {often}. Until then read differences as provisional."
    made = [command for board in content.boards.values() for command in _making(content, board)]
    if not made:
        return tag("div", tag("p", said), class_="notice")
    said += " This makes the runs that are lacking, and keeps what is there:"
    return tag("div", tag("p", said), code("\n".join(made)), class_="notice")


def _making(content: Content, board: Leaderboard) -> list[str]:
    """The commands that make what a board lacks, with the settings of its runs."""
    some = board.lines[0]
    wanted = {some.tuned: _short(board)}
    if not some.tuned and len(content.of_data(some.data)) == 1:  # nothing is tuned
        wanted[TRIALS] = [n for n in names() if is_yardstick(n) and n not in board.failed]
    like = content.experiment(content.example(board))
    return [
        compare([some.data], methods, ENOUGH, like, tuned, str(content.out))
        for tuned, methods in wanted.items()
        if methods
    ]


def _short(board: Leaderboard) -> list[str]:
    """The methods that were not run with enough seeds, of those that came to an end in some."""
    every = dict.fromkeys([*board.runs, *board.absent])
    made = {n: len(board.runs.get(n, {})) + len(board.failures.get(n, {})) for n in every}
    return [name for name in every if made[name] < ENOUGH]
