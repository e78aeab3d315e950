"""From the folders of a comparison to its tables: paired by seed, against the best baseline.

The *best yardstick* of a data set is the simple baseline with the best mean metric on the
validation data. The *mechanism effect* is the difference to the yardstick that has the same
ingredients as the method and lacks its mechanism. The *harm rate* is the share of seeds on which a
method's test predictions are worse than the best yardstick's, by an exact McNemar test (for
regression: Wilcoxon's, on squared errors) at 5 %.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

from equivox.bench.compare import FAILED, Choice, records, worth
from equivox.bench.findings import p_text, plus_minus, signed
from equivox.bench.statistics import Difference, Interval, interval, paired

JOINT = "joint"
WITHOUT_MECHANISM = {
    frozenset[str](): JOINT,
    frozenset({"unimodal losses"}): "unimodal_losses",
    frozenset({"unimodal losses", "extra parameters"}): "unimodal_losses",
    frozenset({"unimodal losses", "inference rule", "extra parameters"}): "ensemble",
    frozenset({"unimodal initialisation", "extra epochs"}): "unimodal_init",
}
"""The yardstick that has a method's ingredients without its mechanism."""

COLUMNS = """
data tuned method yardstick seeds failed metric low high last over_joint over_joint_low
over_joint_high best_yardstick over_yardstick over_yardstick_low over_yardstick_high detectable
p_holm mechanism reference harm imbalance time probes
"""

Runs = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """A method on a data set, over its seeds; differences are None where there is no opponent."""

    data: str
    method: str
    tuned: int
    yardstick: bool
    metric: Interval
    last: float
    over_joint: Difference | None
    over_yardstick: Difference | None
    p_holm: float
    mechanism: Difference | None
    reference: str
    harm: float
    probe: Mapping[str, float]
    imbalance: float
    time: float
    failed: int


class Leaderboard:
    """The lines of one data set, defaults or tuned.

    Attributes: `lines`, best first; `best`, the name of the best yardstick; `failed`, what diverged
    or was refused in every seed, with the reason.
    """

    def __init__(
        self, runs: Mapping[str, Runs], failures: Mapping[str, Mapping[int, str]], out: Path
    ) -> None:
        self.runs = runs
        self.out = out
        self.failures = failures
        names = [name for name in runs if is_yardstick(name)]
        self.best = max(names, key=lambda n: fmean(r["validation"] for r in runs[n].values()))
        self.failed = {
            name: next(iter(found.values())) for name, found in failures.items() if name not in runs
        }
        holm = _holm({n: self._over(n, self.best) for n in runs if not is_yardstick(n)})
        lines = [self._line(name, holm.get(name, math.nan)) for name in runs]
        self.lines = sorted(lines, key=lambda line: -line.metric.mean)

    def _line(self, name: str, p_holm: float) -> Line:
        found = self.runs[name]
        some = next(iter(found.values()))
        reference = _reference(name)
        harms = [self._worse(name, seed) for seed in found if seed in self.runs[self.best]]
        joint = self.runs.get(JOINT, {})
        times = [found[s]["seconds"] / joint[s]["seconds"] for s in found if s in joint]
        return Line(
            some["data"],
            name,
            some["tuned"],
            is_yardstick(name),
            interval(list(_metrics(found).values())),
            fmean(worth(run["last"]["test"], run["metric"]) for run in found.values()),
            self._over(name, JOINT),
            self._over(name, self.best),
            p_holm,
            self._over(name, reference),
            reference,
            fmean(harms) if harms else math.nan,
            _means(run["probe"] for run in found.values()),
            fmean(run.get("imbalance", math.nan) for run in found.values()),
            median(times) if times else math.nan,
            len(self.failures.get(name, {})),
        )

    def _over(self, name: str, other: str) -> Difference | None:
        mine, theirs = self.runs[name], self.runs.get(other, {})
        if name == other or not set(mine) & set(theirs):
            return None
        return paired(_metrics(mine), _metrics(theirs))

    def _worse(self, name: str, seed: int) -> bool:
        """Whether the predictions of this seed are significantly worse than the yardstick's."""
        if name == self.best:
            return False
        mine, theirs = (
            _merits(self.out / self.runs[who][seed]["folder"]) for who in (name, self.best)
        )
        return _significantly_below(mine, theirs)


def _metrics(runs: Runs) -> dict[int, float]:
    return {seed: worth(run["test"], run["metric"]) for seed, run in runs.items()}


def boards(out: Path) -> dict[tuple[str, int], Leaderboard]:
    """The leaderboard of every data set, with defaults (0) and by the number of trials."""
    found: dict[tuple[str, int], dict[str, dict[int, Any]]] = {}
    for record in records(out):
        runs = found.setdefault((record["data"], record["tuned"]), {})
        runs.setdefault(record["method"], {})[record["seed"]] = record
    failures = _failures(out)
    return {
        key: Leaderboard(runs, failures.get(key, {}), out)
        for key, runs in found.items()
        if any(is_yardstick(name) for name in runs)
    }


def is_yardstick(method: str) -> bool:
    """Whether a method is a simple baseline."""
    return _class(method).category == "yardstick"


def _class(method: str) -> Any:
    from equivox import methods

    return methods.get(Choice.parse(method).name)


def _reference(method: str) -> str:
    if is_yardstick(method):
        return ""
    return WITHOUT_MECHANISM.get(frozenset(_class(method).ingredients), "")


def _failures(out: Path) -> dict[tuple[str, int], dict[str, dict[int, str]]]:
    found: dict[tuple[str, int], dict[str, dict[int, str]]] = {}
    for path in sorted(out.glob(f"runs/*/*/*/{FAILED}")):
        one = json.loads(path.read_bytes())
        methods = found.setdefault((one["data"], one["tuned"]), {})
        methods.setdefault(one["method"], {})[one["seed"]] = one["error"]
    return found


def _means(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    rows = list(found)
    return {key: fmean(row[key] for row in rows) for key in rows[0]}


@cache
def _merits(folder: Path) -> Any:
    """How well each test sample is answered: right or not, or minus its squared error."""
    from safetensors.torch import load_file

    from equivox.bench.folder import read_experiment

    kept = load_file(folder / "predictions.safetensors")
    experiment = read_experiment(folder)
    task = _task(json.dumps([experiment.data, dict(experiment.data_options)]))
    return task.merit(kept["best"], kept["target"]).double().numpy()


@cache
def _task(data: str) -> Any:
    from equivox import data as datasets

    name, options = json.loads(data)
    return datasets.load(name, **options).task


def _significantly_below(mine: Any, theirs: Any) -> bool:
    from scipy import stats

    worse, better = int((mine < theirs).sum()), int((mine > theirs).sum())
    if worse <= better:
        return False
    if set(mine.tolist()) <= {0.0, 1.0}:
        return bool(stats.binomtest(better, worse + better).pvalue < 0.05)
    return bool(stats.wilcoxon(mine, theirs, alternative="less").pvalue < 0.025)


def _holm(differences: Mapping[str, Difference | None]) -> dict[str, float]:
    """Holm's correction of the paired tests' p-values."""
    known = {name: d.p for name, d in differences.items() if d is not None and not math.isnan(d.p)}
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(known, key=lambda n: known[n])):
        largest = max(largest, min(1.0, known[name] * (len(known) - rank)))
        corrected[name] = largest
    return corrected


# ── as text ─────────────────────────────────────────────────────────────────────────────────────


def markdown(board: Leaderboard) -> str:
    """The lines as a table, yardsticks in italics, what was not run below it."""
    modalities = list(board.lines[0].probe)
    heads = [
        "method", "seeds", "metric", "last epoch", "over joint", "over the best yardstick",
        "p (Holm)", "mechanism effect", "harm", *(f"probe {m}" for m in modalities), "imbalance",
        "time",
    ]  # fmt: skip
    rule = ["---", *["---:"] * (len(heads) - 1)]
    rows = [heads, rule, *(_cells(line, modalities) for line in board.lines)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    told = [f"- `{name}`: not run: {why}" for name, why in board.failed.items()]
    return "\n\n".join([f"The best yardstick is `{board.best}`.", text, "\n".join(told)]).strip()


def _cells(line: Line, modalities: Sequence[str]) -> list[str]:
    name = f"*{line.method}*" if line.yardstick else line.method
    seeds = str(line.metric.seeds) + (f" ({line.failed} diverged)" if line.failed else "")
    effect = _difference(line.mechanism) + (f" ({line.reference})" if line.mechanism else "")
    return [
        name,
        seeds,
        f"{line.metric.mean:.3f}{plus_minus(line.metric.half)}",
        f"{line.last:.3f}",
        _difference(line.over_joint),
        _difference(line.over_yardstick),
        p_text(line.p_holm),
        effect,
        _number(line.harm, 1),
        *(_number(line.probe[m], 3) for m in modalities),
        _number(line.imbalance, 3),
        _number(line.time, 2),
    ]


def _difference(found: Difference | None) -> str:
    return "" if found is None else f"{signed(found.mean)}{plus_minus(found.half)}"


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def table(found: Iterable[Leaderboard]) -> str:
    """All lines as CSV, one number a column."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS.split())
    for board in found:
        for line in board.lines:
            writer.writerow(_row(line, board.best))
    return stream.getvalue()


def _row(line: Line, best: str) -> list[Any]:
    joint, yardstick = line.over_joint, line.over_yardstick
    numbers = [
        line.metric.mean, line.metric.low, line.metric.high, line.last, *_ends(joint), best,
        *_ends(yardstick), math.nan if yardstick is None else yardstick.detectable, line.p_holm,
        math.nan if line.mechanism is None else line.mechanism.mean, line.reference, line.harm,
        line.imbalance, line.time,
    ]  # fmt: skip
    cells = [f"{x:.6g}" if isinstance(x, float) else x for x in numbers]
    probes = " ".join(f"{m}={p:.4f}" for m, p in line.probe.items())
    facts = [line.data, line.tuned, line.method, line.yardstick, line.metric.seeds, line.failed]
    return [*facts, *("" if x == "nan" else x for x in cells), probes]


def _ends(found: Difference | None) -> tuple[float, float, float]:
    return (math.nan,) * 3 if found is None else (found.mean, found.low, found.high)
