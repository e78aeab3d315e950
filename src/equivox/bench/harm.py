"""Harm: the share of seeds on which a method is significantly worse than its opponent.

Significant by sample: an exact McNemar test where a sample is right or wrong, else Wilcoxon's
signed-rank test, of minus the squared errors for regression; two-sided at 5 %.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equivox.task import Task


def harm(mine: Mapping[int, Path], theirs: Mapping[int, Path]) -> float:
    """The share of their seeds on which `mine` is significantly worse; NaN where they share none.

    :param mine: The run's folder by seed; `theirs` likewise.
    :raises ValueError: Where a folder lacks its predictions.
    """
    seeds = [seed for seed in mine if seed in theirs]
    worse = [significantly_below(merits(mine[s]), merits(theirs[s])) for s in seeds]
    return fmean(worse) if worse else float("nan")


def significantly_below(mine: Any, theirs: Any) -> bool:
    """Whether the samples are answered worse, (samples,) arrays of merits in one order.

    >>> import numpy
    >>> significantly_below(numpy.zeros(6), numpy.ones(6))  # p = 2 / 2^6
    True
    """
    from scipy import stats

    worse, better = int((mine < theirs).sum()), int((mine > theirs).sum())
    if worse == 0:
        return False
    if set(mine.tolist()) | set(theirs.tolist()) <= {0.0, 1.0}:
        return worse > better and bool(stats.binomtest(better, worse + better).pvalue < 0.05)
    return bool(stats.wilcoxon(mine, theirs, alternative="less").pvalue < 0.025)


@lru_cache(maxsize=64)  # an opponent's are asked for by every method
def merits(folder: Path) -> Any:
    """How well each test sample is answered by the selected weights: `task.merit`, (samples,)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from equivox.bench.folder import PREDICTIONS, RESULT

    try:
        kept = load_file(folder / PREDICTIONS)
        task = _task(json.loads((folder / RESULT).read_bytes())["protocol"]["task"])
        return task.merit(kept["best"], kept["target"]).double().numpy()
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ValueError(
            f"`{folder}` should hold `{PREDICTIONS}` and `{RESULT}` of a finished run. Found: "
            f"{error}. Delete the folder: the same command makes its run again."
        ) from error


def _task(text: str) -> Task:
    """The task of which this is the `repr`; so no data are needed to compare runs."""
    from equivox import task

    call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"the task `{text}`")
    options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    found: Task = getattr(task, call.func.id)(**options)
    return found
