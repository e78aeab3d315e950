"""The lists of runs that every number leads to, with the commands that repeat them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equivox.bench.leaderboard import Leaderboard
from equivox.bench.notation import counted
from equivox.bench.result import worth
from equivox.report.page import Markup, code, joined, marked, table, tag
from equivox.report.site import commands
from equivox.report.site.content import Content
from equivox.report.site.links import runs_anchor

_HEADS = ("seed", "metric", "validation", "last epoch", "epoch", "fingerprint", "folder")


def runs(content: Content, board: Leaderboard) -> Markup:
    """All runs of a board: a part to open for every method, best first."""
    lines = [line.method for line in board.lines]
    ran = [*lines, *(name for name in board.failures if name not in lines)]
    return joined(*(_of_method(content, board, name) for name in ran))


def again(content: Content, board: Leaderboard, methods: Sequence[str]) -> str:
    """The command that makes the runs of some methods again."""
    some = board.lines[0]
    theirs = [run for name in methods for run in board.runs.get(name, {}).values()]
    like = content.experiment(next(iter(theirs), content.example(board)))
    made = [board.runs.get(name, {}) for name in methods] + [
        board.failures.get(name, {}) for name in methods
    ]
    seeds = max(seed for found in made for seed in found) + 1
    return commands.compare([some.data], methods, seeds, like, some.tuned)


def _of_method(content: Content, board: Leaderboard, name: str) -> Markup:
    found = [run for _, run in sorted(board.runs.get(name, {}).items())]
    failed = board.failures.get(name, {})
    told = [counted(len(found), "run"), *([f"{len(failed)} failed"] if failed else [])]
    singly = [commands.train(content.experiment(run), run["folder"]) for run in found]
    inside = [
        table(f"Runs of {name}", _HEADS, [_row(run) for run in found]) if found else "",
        _failures(failed),
        tag("p", "All of these again, or one of them:"),
        code("\n".join([again(content, board, [name]), *singly])),
    ]
    return tag(
        "details",
        tag("summary", tag("code", name), f" {', '.join(told)}"),
        tag("div", *inside, id=runs_anchor(name, board.lines[0].tuned)),
    )


def _row(run: Mapping[str, Any]) -> list[str]:
    metric = run["metric"]
    return [
        str(run["seed"]),
        f"{worth(run['test'], metric):.4f}",
        f"{run['validation']:.4f}",
        f"{worth(run['last']['test'], metric):.4f}",
        str(run["epoch"] + 1),
        tag("code", run["fingerprint"]),
        tag("code", run["folder"]),
    ]


def _failures(failed: Mapping[int, str]) -> Markup:
    told = [tag("li", f"Seed {seed}: ", marked(why)) for seed, why in sorted(failed.items())]
    return tag("ul", *told) if told else Markup("")
