"""What a site shows: a comparison's folder, read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from equivox.bench.experiment import Experiment
from equivox.bench.files import Shape, read_json, shaped
from equivox.bench.folder import CONFIG, RESULT, read_experiment
from equivox.bench.leaderboard import Key, Leaderboard, Line, boards, is_yardstick
from equivox.bench.ranking import Ranking, rankings
from equivox.bench.records import RECORD

_WAY_OUT = "Delete the run's folder: the comparison's command makes its run again."
_PROTOCOL = {
    "task": str, "samples": {...: int}, "shapes": {...: list}, "encoders": {...: str},
    "selection": str, "versions": {...: str},
}  # fmt: skip

Found = list[tuple[Leaderboard, Line]]
"""The lines of a method, each with its board."""


class Content:
    """The boards of a comparison, and where their numbers come from.

    Arguments:
        out: the comparison's folder.

    Raises FileNotFoundError where there is no such folder, ValueError where it holds no finished
    run or a damaged one.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        _check_compared(out)
        self.boards: Mapping[Key, Leaderboard] = boards(out)

    @property
    def lines(self) -> list[Line]:
        """The lines of all boards."""
        return [line for board in self.boards.values() for line in board.lines]

    @cached_property
    def data(self) -> list[str]:
        """The labels of the data sets."""
        return list(dict.fromkeys(data for data, _ in self.boards))

    @cached_property
    def methods(self) -> list[str]:
        """The labels of the methods, yardsticks first; also of those that never came to an end."""
        every = {name for board in self.boards.values() for name in (*board.runs, *board.failures)}
        return sorted(every, key=lambda name: (not is_yardstick(name), name))

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """The average ranks by the number of trials."""
        return rankings(self.boards)

    @property
    def by_rank(self) -> list[str]:
        """The methods, the best on average first; those that are not ranked come last."""
        ranked = next((list(found.ranks) for found in self.rankings.values()), [])
        return [*ranked, *(name for name in self.methods if name not in ranked)]

    @property
    def some_complete(self) -> bool:
        """Whether a line is complete: where none is, it need not be said of each."""
        return any(line.complete for line in self.lines)

    def of_data(self, data: str) -> dict[int, Leaderboard]:
        """The boards of a data set, by the number of trials."""
        return {tuned: board for (name, tuned), board in self.boards.items() if name == data}

    def of_method(self, method: str) -> Found:
        """Its lines, each with its board."""
        every = [(board, line) for board in self.boards.values() for line in board.lines]
        return [(board, line) for board, line in every if line.method == method]

    def example(self, board: Leaderboard) -> Mapping[str, Any]:
        """A run of the best yardstick, or of the first line: what it trained, the others share."""
        return next(iter(board.runs[board.best or board.lines[0].method].values()))

    def experiment(self, run: Mapping[str, Any]) -> Experiment:
        """What a run trained."""
        return read_experiment(self.out / run["folder"])

    def protocol(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """What another run must share with this one to be compared, and its `commit`."""
        folder = self.out / run["folder"]
        found: dict[str, Any] = _read(folder / RESULT, {"protocol": _PROTOCOL})["protocol"]
        return found | {"commit": _read(folder / CONFIG, {}).get("commit")}


def _check_compared(out: Path) -> None:
    if not out.is_dir():
        raise FileNotFoundError(
            f"A site is made from the folder of a comparison. Found no folder `{out}`. Make one by "
            f"`equivox compare --data latent2 --out {out}`."
        )
    if not any(out.glob(f"runs/*/*/*/{RECORD}")):
        there = ", ".join(f"`{path.name}`" for path in sorted(out.iterdir())[:5])
        raise ValueError(
            "A site needs finished runs, `runs/<data>/<method>/seed-<n>/record.json`. Found none "
            f"in `{out}`, which holds {there or 'nothing'}. Name the folder that `equivox compare "
            "--out` was given."
        )


def _read(path: Path, shape: Shape) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"A finished run has a file `{path}`. Found none. {_WAY_OUT}")
    return read_json(path, "a finished run", _WAY_OUT, lambda found: shaped(found, shape))
