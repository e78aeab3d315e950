"""What a comparison says, in sentences and counts that are made from its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from equivox.bench.leaderboard import Leaderboard, Line, title
from equivox.bench.notation import counted, plus_minus, signed
from equivox.report.site.cells import verdict
from equivox.report.site.content import Content, Found


@dataclass(frozen=True)
class Count:
    """Of the methods of one board, yardsticks apart, so many lie above and below.

    `above` and `below` the best yardstick, after Holm's correction; `over_joint` and `under_joint`
    by the uncorrected interval.
    """

    methods: int
    above: tuple[Line, ...]
    below: tuple[Line, ...]
    over_joint: int
    under_joint: int


def count(board: Leaderboard) -> Count:
    """The counts of one board."""
    lines = [line for line in board.lines if not line.yardstick]
    joint = [line.over_joint for line in lines if line.over_joint is not None]
    return Count(
        len(lines),
        tuple(line for line in lines if verdict(line) == "up"),
        tuple(line for line in lines if verdict(line) == "down"),
        sum(d.low > 0 for d in joint),
        sum(d.high < 0 for d in joint),
    )


def of_board(board: Leaderboard) -> list[str]:
    """What the board of one data set says."""
    if not board.best:
        return ["No yardstick ran, so there is nothing that the methods could be compared with."]
    best = next(line for line in board.lines if line.method == board.best)
    found = count(board)
    value = f"{best.metric.mean:.3f}{plus_minus(best.metric.half)}"
    said = [f"The best yardstick, chosen on the validation data, is {best.title} with {value}."]
    if not found.methods:
        return [*said, "No other method ran."]
    if best.metric.seeds < 2:
        return [*said, "One seed does not tell how the methods compare with it."]
    kept = found.methods - len(found.above) - len(found.below)
    said.append(
        f"Of {counted(found.methods, 'method')}, {len(found.above)} {_are(len(found.above))} "
        f"clearly above it after Holm's correction{_named(found.above)}, {len(found.below)} "
        f"clearly below, and {kept} cannot be told from it."
    )
    said.append(
        f"Against joint training alone, {found.over_joint} would look better and "
        f"{found.under_joint} worse."
    )
    return said


def of_all(content: Content) -> list[str]:
    """What all boards say together."""
    counts = [count(board) for board in content.boards.values()]
    pairs = sum(c.methods for c in counts)
    above, joint = sum(len(c.above) for c in counts), sum(c.over_joint for c in counts)
    below = sum(len(c.below) for c in counts)
    if not pairs or all(line.metric.seeds < 2 for line in content.lines):
        return ["One seed, or yardsticks alone: nothing can be said about methods."]
    some = sum(bool(c.above) for c in counts)
    said = [
        f"On {some} of {counted(len(counts), 'board')} a method is clearly above the best "
        "yardstick after Holm's correction. A board is a data set, with default or with tuned "
        "hyper-parameters.",
        f"Of {counted(pairs, 'pair')} of a method and a board, {joint} {_are(joint)} above joint "
        f"training; {above} {_are(above)} above the best yardstick, and {below} below it.",
    ]
    won = Counter(line.title for c in counts for line in c.above)
    if won:
        top = ", ".join(f"{name} on {n}" for name, n in won.most_common(5))
        said.append(f"Most often above the best yardstick: {top}.")
    best = Counter(title(board.best) for board in content.boards.values() if board.best)
    told = ", ".join(f"{name} on {n}" for name, n in best.most_common())
    return [*said, f"The best yardstick is {told}."]


def of_method(found: Found) -> list[str]:
    """What all boards say about one method."""
    if not found:
        return ["It came to an end in no run."]
    if found[0][1].yardstick:
        best = [board for board, line in found if board.best == line.method]
        return [
            "A yardstick: a simple baseline that every method has to beat. It is the best one on "
            f"{len(best)} of {counted(len(found), 'board')}."
        ]
    lines = [line for _, line in found]
    up, down = _of(lines, "up"), _of(lines, "down")
    said = [
        f"On {len(up)} of {counted(len(lines), 'board')} it is clearly above the best yardstick "
        f"after Holm's correction{_where(up)}, on {len(down)} clearly below."
    ]
    joint = [line for line in lines if line.over_joint is not None and line.over_joint.low > 0]
    return [*said, f"It is above joint training on {len(joint)}{_where(joint)}."]


def _of(lines: Iterable[Line], which: str) -> list[Line]:
    return [line for line in lines if verdict(line) == which]


def _named(lines: Sequence[Line]) -> str:
    gains = [
        f"{line.title} {signed(line.over_yardstick.mean)}"
        for line in lines
        if line.over_yardstick is not None
    ]
    return f" ({', '.join(gains)})" if gains else ""


def _where(lines: Sequence[Line]) -> str:
    names = [f"`{line.data}`" + (", tuned" if line.tuned else "") for line in lines]
    return f" ({'; '.join(names)})" if names else ""


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
