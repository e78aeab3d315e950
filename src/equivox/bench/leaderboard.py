"""From the folders of a comparison to its lines: paired by seed, against the best yardstick.

The *best yardstick* of a data set is the simple baseline with the best mean metric on the
validation data, among those that had as many trials as the board. The *mechanism effect* is the
difference to the yardstick that has the same ingredients as the method and lacks its mechanism.

A line is *complete* where it may be believed: it has five seeds, the yardsticks beside it have five
seeds too, and they are tuned. On a board of tuned hyper-parameters they are so with as many trials
as every other line. On a board of defaults nothing is tuned; its lines are complete where the
yardsticks are tuned elsewhere in the same comparison, and the difference to the best of *those*
(`over_tuned`) then stands beside the difference to the best of the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from equivox.bench.cost import UNKNOWN, Cost
from equivox.bench.cost_records import costs
from equivox.bench.harm import harm
from equivox.bench.labels import JOINT, category, is_yardstick, reference, title
from equivox.bench.line import NOTHING, Line
from equivox.bench.records import failures, records
from equivox.bench.result import worth
from equivox.bench.robust import improvement, interquartile_mean
from equivox.bench.statistics import Difference, bca, by_seed, holm, interval, paired, wilcoxon

__all__ = [
    "JOINT",
    "NOTHING",
    "Key",
    "Leaderboard",
    "Line",
    "boards",
    "is_yardstick",
    "metrics",
    "title",
]

ENOUGH = 5
"""Seeds that a line needs to be complete."""

Runs = Mapping[int, Mapping[str, Any]]
Key = tuple[str, int]
"""A data set, and the trials that chose the hyper-parameters: 0 for the defaults."""


class Leaderboard:
    """The lines of one data set, with defaults or tuned.

    Attributes: `lines`, best first; `best`, the name of the best yardstick, empty where none ran;
    `failed`, what diverged or was refused in every seed, with the reason.

    :param runs: The record of every run, by method and seed.
    :param failures: Why runs failed, by method and seed.
    :param out: The comparison's folder.
    :param costs: What a batch costs, by method.
    :param tuned: On a board of defaults, that of the same data with tuned yardsticks.
    """

    def __init__(
        self,
        runs: Mapping[str, Runs],
        failures: Mapping[str, Mapping[int, str]],
        out: Path,
        costs: Mapping[str, Cost] | None = None,
        tuned: Leaderboard | None = None,
    ) -> None:
        self.runs = runs
        self.out = out
        self.failures = failures
        self.costs = costs or {}
        self.tuned = tuned
        self.metrics = {name: metrics(found) for name, found in runs.items()}
        self.best = max(filter(is_yardstick, runs), key=self._validation, default="")
        self.failed = {
            name: next(iter(why.values())) for name, why in failures.items() if name not in runs
        }
        self._found: dict[tuple[str, str], Difference | None] = {}
        self._p_holm, self._p_wilcoxon = self._corrected()
        lines = [Line(**self._facts(n), **self._against_best(n), **self._paid(n)) for n in runs]
        self.lines = sorted(lines, key=lambda line: -line.metric.mean)

    def _validation(self, name: str) -> float:
        return fmean(run["validation"] for run in self.runs[name].values())

    # ── the parts of a line ─────────────────────────────────────────────────────────────────────

    def _facts(self, name: str) -> dict[str, Any]:
        found, values = self.runs[name], list(self.metrics[name].values())
        runs = list(found.values())
        return {
            "data": runs[0]["data"],
            "method": name,
            "title": title(name),
            "category": category(name),
            "tuned": runs[0]["tuned"],
            "metric": interval(values),
            "iqm": interquartile_mean(values),
            "last": fmean(worth(run["last"]["test"], run["metric"]) for run in runs),
            "over_joint": self._over(name, JOINT),
            "mechanism": self._over(name, reference(name)),
            "reference": reference(name),
            "probe": _means([run["probe"] for run in runs]),
            "imbalance": fmean(run.get("imbalance", math.nan) for run in runs),
            "failed": len(self.failures.get(name, {})),
            "lacking": "; ".join(self._lacking(name)),
        }

    def _against_best(self, name: str) -> dict[str, Any]:
        values, best = self.metrics[name], self.metrics.get(self.best, {})
        apart = name != self.best and bool(values.keys() & best.keys())
        return {
            "over_yardstick": self._over(name, self.best),
            "over_tuned": self._over_tuned(name),
            "bca": bca(by_seed(values, best)) if apart else (math.nan, math.nan),
            "p_holm": self._p_holm.get(name, math.nan),
            "p_wilcoxon": self._p_wilcoxon.get(name, math.nan),
            "improvement": improvement([*values.values()], [*best.values()]) if apart else NOTHING,
            "harm": self._harm(name),
        }

    def _paid(self, name: str) -> dict[str, Any]:
        mine, joint = (self.costs.get(n, UNKNOWN) for n in (name, JOINT))
        return {
            "time": self._time(name),
            "flops": mine.flops / joint.flops,
            "memory": mine.memory / joint.memory,
            "step": mine.step,
        }

    # ── against others ──────────────────────────────────────────────────────────────────────────

    def _corrected(self) -> tuple[dict[str, float], dict[str, float]]:
        """The p-values of the methods against the best yardstick, after Holm."""
        best = self.metrics.get(self.best, {})
        over = {n: self._over(n, self.best) for n in self.runs if not is_yardstick(n)}
        known = {name: found.p for name, found in over.items() if found is not None}
        return holm(known), holm({n: wilcoxon(by_seed(self.metrics[n], best)) for n in known})

    def _over(self, name: str, other: str) -> Difference | None:
        if (name, other) not in self._found:
            theirs = {} if name == other else self.metrics.get(other, {})
            self._found[name, other] = _difference(self.metrics[name], theirs)
        return self._found[name, other]

    def _over_tuned(self, name: str) -> Difference | None:
        theirs = self.tuned.metrics[self.tuned.best] if self.tuned else {}
        return _difference(self.metrics[name], theirs)

    def _harm(self, name: str) -> float:
        if name == self.best:
            return 0.0
        return harm(self._folders(name), self._folders(self.best))

    def _folders(self, name: str) -> dict[int, Path]:
        return {seed: self.out / run["folder"] for seed, run in self.runs.get(name, {}).items()}

    def _time(self, name: str) -> float:
        mine, joint = self.runs[name], self.runs.get(JOINT, {})
        ratios = [mine[s]["seconds"] / joint[s]["seconds"] for s in mine if s in joint]
        return median(ratios) if ratios else math.nan

    # ── what is lacking ─────────────────────────────────────────────────────────────────────────

    def _lacking(self, name: str) -> list[str]:
        found = []
        if (seeds := len(self.runs[name])) < ENOUGH:
            found.append(f"{seeds} of {ENOUGH} seeds")
        if self.absent:
            found.append(f"too few seeds of {_listed(self.absent)}")
        if not self._records(name)[0]["tuned"]:
            if self.tuned is None:
                found.append("no yardstick is tuned")
            elif self.tuned.absent:
                found.append(f"too few seeds of {_listed(self.tuned.absent)}, tuned")
        if len({run["fingerprint"] for run in self._compared(name)}) > 1:
            found.append("its runs and those that it is compared with differ in their protocol")
        return found

    def _compared(self, name: str) -> list[Mapping[str, Any]]:
        """The runs of a method and of all that its line has a difference to."""
        tuned = self.tuned._records(self.tuned.best) if self.tuned else []
        others = (name, self.best, JOINT, reference(name))
        return [*tuned, *(run for other in others for run in self._records(other))]

    def _records(self, name: str) -> list[Mapping[str, Any]]:
        return list(self.runs.get(name, {}).values())

    @property
    def absent(self) -> list[str]:
        """The yardsticks that have too few seeds, of those that can run on these data."""
        from equivox import methods

        every = filter(is_yardstick, methods.names())
        return [n for n in every if len(self.runs.get(n, {})) < ENOUGH and n not in self.failed]

    @property
    def monitor(self) -> str:
        """The metric, as the task names it; a loss with its sign turned."""
        found = next(run["metric"] for runs in self.runs.values() for run in runs.values())
        return "\N{MINUS SIGN}loss" if found == "loss" else str(found)


def boards(out: Path) -> dict[Key, Leaderboard]:
    """The leaderboard of every data set, with defaults (0) and by the number of trials.

    :raises ValueError: For a record that is damaged or of a newer version.
    """
    runs: dict[Key, dict[str, dict[int, Any]]] = {}
    failed: dict[Key, dict[str, dict[int, str]]] = {}
    for one in failures(out):
        _put(failed, one, one["error"])
    for one in records(out):
        if math.isfinite(one["validation"]) and math.isfinite(worth(one["test"], one["metric"])):
            _put(runs, one, one)
        else:
            _put(failed, one, f"its {one['metric']} is not finite")
    measured = costs(out)
    found: dict[Key, Leaderboard] = {}
    for data, trials in sorted(runs, key=lambda key: (key[0], -key[1])):  # the defaults come last
        tuned = [board for (name, _), board in found.items() if name == data and board.best]
        found[data, trials] = Leaderboard(
            runs[data, trials],
            failed.get((data, trials), {}),
            out,
            measured.get(data),
            tuned[0] if tuned and not trials else None,
        )
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _put(found: dict[Key, dict[str, dict[int, Any]]], one: Mapping[str, Any], what: Any) -> None:
    methods = found.setdefault((one["data"], one["tuned"]), {})
    methods.setdefault(one["method"], {})[one["seed"]] = what


def metrics(runs: Runs) -> dict[int, float]:
    """The metric on the test data, by seed."""
    return {seed: worth(run["test"], run["metric"]) for seed, run in runs.items()}


def _difference(mine: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    return paired(mine, theirs) if mine.keys() & theirs.keys() else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{len(names)} yardsticks"


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By the keys that all rows have."""
    return {k: fmean(row[k] for row in rows) for k in rows[0] if all(k in row for row in rows)}
