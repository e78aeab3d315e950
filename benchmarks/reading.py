"""Counts what a comparison says: methods above and below joint training and the best yardstick.

    python benchmarks/reading.py runs/table --out docs/results

One line a data set, of all methods and controls with their defaults. Above and below mean that the
95 % interval of the paired difference leaves zero out, "after Holm" that the corrected p-value is
below 0.05 as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from equivox.bench.leaderboard import JOINT, Leaderboard, Line, boards, title
from equivox.bench.statistics import Difference

HEADER = (
    "| data | seeds | joint | best yardstick, by default | tuned | methods | above joint | below "
    "joint | above the best yardstick | below it | above after Holm | above the best tuned one |"
)
RULE = "| --- | ---: | ---: | --- | --- |" + " ---: |" * 5 + " --- | --- |"


def reading(found: Iterable[Leaderboard]) -> str:
    """The table of all boards of defaults."""
    rows = [row(board) for board in found if board.best and not board.lines[0].tuned]
    return "\n".join([HEADER, RULE, *rows]) + "\n"


def row(board: Leaderboard) -> str:
    """The line of one data set."""
    lines = [line for line in board.lines if not line.yardstick]
    cells = [
        f"`{board.lines[0].data}`",
        str(max(line.metric.seeds for line in board.lines)),
        _mean(board, JOINT),
        _best(board),
        _best(board.tuned),
        str(len(lines)),
        *_counts(lines, lambda line: line.over_joint),
        *_counts(lines, lambda line: line.over_yardstick),
        _named(x for x in lines if x.p_holm < 0.05 and _above(x.over_yardstick)),
        _named(x for x in lines if _above(x.over_tuned)),
    ]
    return "| " + " | ".join(cells) + " |"


def _mean(board: Leaderboard, method: str) -> str:
    return "".join(f"{x.metric.mean:.3f}" for x in board.lines if x.method == method)


def _best(board: Leaderboard | None) -> str:
    return f"{title(board.best)} {_mean(board, board.best)}" if board and board.best else ""


def _counts(
    lines: Iterable[Line], difference: Callable[[Line], Difference | None]
) -> tuple[str, str]:
    known = [d for d in map(difference, lines) if d is not None]
    return str(sum(d.low > 0 for d in known)), str(sum(d.high < 0 for d in known))


def _above(difference: Difference | None) -> bool:
    return difference is not None and difference.low > 0


def _named(lines: Iterable[Line]) -> str:
    return ", ".join(line.title for line in lines)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the folder of a comparison")
    parser.add_argument("--out", type=Path, help="where to write reading.md; also printed")
    given = parser.parse_args()
    text = reading(boards(given.runs).values())
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "reading.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
