"""The lines of leaderboards as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from equivox.bench.cost import pareto
from equivox.bench.leaderboard import Key, Leaderboard, Line, is_yardstick
from equivox.bench.notation import counted, number, p_text, plus_minus, signed
from equivox.bench.ranking import Ranking, rankings
from equivox.bench.search import cost
from equivox.bench.statistics import Difference, Interval

COLUMNS = """
data tuned method category yardstick seeds failed metric metric_low metric_high iqm iqm_low iqm_high
last over_joint over_joint_low over_joint_high best_yardstick over_yardstick over_yardstick_low
over_yardstick_high bca_low bca_high detectable p_holm p_wilcoxon improvement improvement_low
improvement_high over_tuned over_tuned_low over_tuned_high mechanism reference harm imbalance time
flops memory step complete lacking probes
"""
DAGGER = "\N{DAGGER}"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def heading(data: str, tuned: int) -> str:
    """What a board is of."""
    return f"{data}, tuned by {counted(tuned, 'trial')}" if tuned else data


# ── Markdown ────────────────────────────────────────────────────────────────────────────────────


def markdown(boards: Mapping[Key, Leaderboard]) -> str:
    """Every board under a heading, then the ranks over the boards of one number of trials."""
    parts = [f"## {heading(*key)}\n\n{board_markdown(board)}" for key, board in boards.items()]
    for trials, found in rankings(boards).items():
        parts.append(f"## {heading('Average ranks', trials)}\n\n{ranking_markdown(found)}")
    return "\n\n".join(parts) + "\n"


def board_markdown(board: Leaderboard) -> str:
    """Two tables, yardsticks in italics, and what is to be said of them."""
    parts = [opponent(board), _grid(main_table(board)), _grid(further_table(board)), _notes(board)]
    return "\n\n".join(part for part in parts if part)


def ranking_markdown(ranking: Ranking) -> str:
    """Friedman's test and the average ranks; what shares a letter does not differ."""
    groups = list(zip(_LETTERS, ranking.cliques, strict=False))
    rows = [
        [
            f"*{name}*" if is_yardstick(name) else name,
            f"{rank:.2f}",
            " ".join(letter for letter, group in groups if name in group),
        ]
        for name, rank in ranking.ranks.items()
    ]
    test = p_text(ranking.friedman)
    said = (
        f"Over {len(ranking.data)} data sets{f'; p of the Friedman test {test}' if test else ''}. "
        f"Methods that share a letter differ by less than {ranking.critical:.2f}, the critical "
        "difference of the Nemenyi test at 5 %."
    )
    left = ", ".join(f"`{name}`" for name in ranking.left_out)
    parts = [said, _grid([["method", "average rank", "group"], *rows])]
    return "\n\n".join([*parts, f"Not on all of them: {left}."] if left else parts)


def _grid(rows: Sequence[Sequence[str]]) -> str:
    heads, *lines = rows
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *lines))


def opponent(board: Leaderboard) -> str:
    """Which yardstick the best is, in a sentence."""
    if not board.best:
        return "No yardstick ran: there is nothing to compare with."
    tuned = f" Tuned, it is `{board.tuned.best}`." if board.tuned else ""
    return f"The best yardstick is `{board.best}`.{tuned}"


def _notes(board: Leaderboard) -> str:
    told = [f"- {DAGGER} incomplete: {text}." for text in lacking(board)]
    if _only_ones(board):
        told.append("- p (Wilcoxon), corrected by Holm, is 1 for every method.")
    if front := pareto(board.lines):
        told.append(f"- Best for their FLOPs: {', '.join(f'`{name}`' for name in front)}.")
    if searched := cost(board.out, board.lines[0].data, board.lines[0].tuned):
        told.append(f"- The search: {searched}.")
    told += [f"- `{name}`: not run: {why}" for name, why in board.failed.items()]
    return "\n".join(told)


def lacking(board: Leaderboard) -> list[str]:
    """Why lines are incomplete, each reason once, with the lines that it is true of."""
    reasons: dict[str, list[str]] = {}
    for line in board.lines:
        for reason in filter(None, line.lacking.split("; ")):
            reasons.setdefault(reason, []).append(line.method)
    every = len(board.lines)
    return [f"{why} ({'all' if len(n) == every else ', '.join(n)})" for why, n in reasons.items()]


# ── the tables ──────────────────────────────────────────────────────────────────────────────────


def main_table(board: Leaderboard) -> list[list[str]]:
    """Performance, imbalance and cost, best first, below the heads of the columns.

    Columns of which no line knows anything are left out.
    """
    heads = [
        "method", "seeds", board.monitor, "over joint", "over the best yardstick", "over it, tuned",
        "detectable", "p (Holm)", "harm", "mechanism effect", "imbalance", "FLOPs", "memory",
        "step",
    ]  # fmt: skip
    return _filled([heads, *(_main_cells(line) for line in board.lines)])


def _main_cells(line: Line) -> list[str]:
    effect = _difference(line.mechanism) + (f" ({line.reference})" if line.mechanism else "")
    detectable = math.nan if line.over_yardstick is None else line.over_yardstick.detectable
    return [
        _name(line),
        str(line.metric.seeds) + (f" ({line.failed} failed)" if line.failed else ""),
        f"{line.metric.mean:.3f}{plus_minus(line.metric.half)}",
        _difference(line.over_joint),
        _difference(line.over_yardstick),
        _difference(line.over_tuned),
        number(detectable, 3),
        p_text(line.p_holm),
        number(line.harm, 1),
        effect,
        number(line.imbalance, 3),
        number(line.flops, 2),
        number(line.memory, 2),
        number(line.step, 2),
    ]


def further_table(board: Leaderboard) -> list[list[str]]:
    """The other statistics, the last epoch, the encoders and the time, as `main_table`."""
    modalities = list(dict.fromkeys(m for line in board.lines for m in line.probe))
    heads = [
        "method", "interquartile mean", "P(better)", "p (Wilcoxon)", "last epoch",
        *(f"probe {m}" for m in modalities), "time",
    ]  # fmt: skip
    blank = _only_ones(board)
    return _filled([heads, *(_further_cells(line, modalities, blank) for line in board.lines)])


def _only_ones(board: Leaderboard) -> bool:
    """Whether Wilcoxon's p says nothing, as with five seeds and more than a few methods."""
    known = [line.p_wilcoxon for line in board.lines if not math.isnan(line.p_wilcoxon)]
    return bool(known) and all(p == 1 for p in known)


def _further_cells(line: Line, modalities: Sequence[str], blank: bool) -> list[str]:
    better = line.improvement
    ends = "" if math.isnan(better.low) else f" [{better.low:.2f}, {better.high:.2f}]"
    return [
        _name(line),
        f"{line.iqm.mean:.3f}{plus_minus(line.iqm.half)}",
        number(better.mean, 2) + ends,
        "" if blank else p_text(line.p_wilcoxon),
        number(line.last, 3),
        *(number(line.probe.get(m, math.nan), 3) for m in modalities),
        number(line.time, 2),
    ]


def _filled(rows: list[list[str]]) -> list[list[str]]:
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def _name(line: Line) -> str:
    name = f"*{line.method}*" if line.yardstick else line.method
    return name if line.complete else f"{name} {DAGGER}"


def _difference(found: Difference | None) -> str:
    return "" if found is None else f"{signed(found.mean)}{plus_minus(found.half)}"


# ── CSV ─────────────────────────────────────────────────────────────────────────────────────────


def table(boards: Mapping[Key, Leaderboard]) -> str:
    """All lines as CSV, one number a column."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS.split(), lineterminator="\n")
    writer.writeheader()
    for board in boards.values():
        for line in board.lines:
            found = _values(line) | {"best_yardstick": board.best}
            writer.writerow({column: _cell(value) for column, value in found.items()})
    return stream.getvalue()


def _values(line: Line) -> dict[str, Any]:
    same = (
        "data", "tuned", "method", "category", "yardstick", "failed", "last", "p_holm",
        "p_wilcoxon", "reference", "harm", "imbalance", "time", "flops", "memory", "step",
        "complete", "lacking",
    )  # fmt: skip
    over, effect = line.over_yardstick, line.mechanism
    return {
        **{name: getattr(line, name) for name in same},
        "seeds": line.metric.seeds,
        **_ends("metric", line.metric),
        **_ends("iqm", line.iqm),
        **_ends("over_joint", line.over_joint),
        **_ends("over_yardstick", over),
        **_ends("over_tuned", line.over_tuned),
        **_ends("improvement", line.improvement),
        **dict(zip(("bca_low", "bca_high"), line.bca, strict=True)),
        "detectable": math.nan if over is None else over.detectable,
        "mechanism": math.nan if effect is None else effect.mean,
        "probes": " ".join(f"{m}={p:.4f}" for m, p in line.probe.items()),
    }


def _ends(name: str, found: Interval | None) -> dict[str, float]:
    ends = (math.nan,) * 3 if found is None else (found.mean, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
