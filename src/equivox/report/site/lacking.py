"""What a comparison lacks to be believed, and the command that makes it."""

from __future__ import annotations

from collections import Counter

from equivox.bench.leaderboard import ENOUGH
from equivox.report.page import Markup, code, tag
from equivox.report.site.commands import compare
from equivox.report.site.content import Content

TRIALS = 8
"""Of a search for hyper-parameters, where there was none yet."""


def incomplete(content: Content) -> Markup:
    """Which lines cannot be believed yet, why, and the command that makes what they lack."""
    lines = [line for line in content.lines if not line.complete]
    if not lines:
        return Markup("")
    reasons = Counter(reason for line in lines for reason in line.lacking.split("; "))
    every = len(lines) == len(content.lines)
    which = "No line is" if every else f"{len(lines)} of {len(content.lines)} lines are not"
    often = "; ".join(f"{why} ({n} lines)" for why, n in reasons.most_common(3))
    said = (
        f"{which} complete yet: {often}. Until then read differences as provisional. This makes "
        "what is lacking, and keeps what is there:"
    )
    return tag("div", tag("p", said), code(_completing(content)), class_="notice")


def _completing(content: Content) -> str:
    boards = content.boards.values()
    absent = [name for board in boards for name in board.absent]
    methods = list(dict.fromkeys([*content.methods, *absent]))
    trials = max(tuned for _, tuned in content.boards) or TRIALS
    runs = next(runs for board in boards for runs in board.runs.values())
    epochs = content.experiment(next(iter(runs.values()))).epochs
    return compare(content.data, methods, ENOUGH, epochs, trials, str(content.out))
