"""The search for hyper-parameters: trials on validation data, and the choice among them.

The hyper-parameters are drawn by a seed of their own, and the trials train with another that no
reported run has.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from equivox.bench.experiment import Experiment
from equivox.bench.files import read_json, shaped, write
from equivox.bench.jobs import SEARCH_SEED, Choice, Job, chosen
from equivox.bench.notation import counted, duration
from equivox.bench.records import RECORD, read
from equivox.methods import get

COMPARED = {"validation": float, "arguments": {}, "seconds": float}
"""What is read of a trial's record."""

_COST = {"trials": int, "search_seconds": float}

DRAW_SEED = 0
"""Of the order in which hyper-parameters are tried."""


def space(method: Choice, modalities: Sequence[str]) -> dict[str, Any]:
    """The values to try of every hyper-parameter that is not given; in a chain, by `method.name`.

    >>> space(Choice.parse("ogm_ge+mmcosine:alpha=0.5"), ("a", "b"))
    {'mmcosine.scale': (10.0, 15.0, 5.0, 1.0, 50.0)}
    """
    found: dict[str, Any] = {}
    names = [name.strip() for name in method.name.split("+")]
    for name in names:
        for key, values in get(name).space(modalities).items():
            full = f"{name}.{key}"
            if not {key, full} & method.options.keys():
                found[full if len(names) > 1 else key] = values
    return found


def trials(space: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The hyper-parameters of a search: the defaults, then draws from the space.

    Always in the same order, and fewer than `count` where there are fewer. Draws do not repeat each
    other, but where the space holds the defaults one of them repeats these.
    """
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    random.Random(DRAW_SEED).shuffle(every)
    return [{}, *(point for point in every if point)][:count]


def search_jobs(
    data: Sequence[Choice],
    methods: Sequence[Choice],
    count: int,
    epochs: int | None,
    patience: int | None = None,
) -> list[Job]:
    """The trials of every method on every data set."""
    jobs = []
    for d in data:
        modalities = Experiment(d.name, data_options=d.options).load().modalities
        for m in methods:
            points = trials(space(m, modalities), count)
            jobs += [
                Job(d, m, SEARCH_SEED, epochs, number, point, patience=patience)
                for number, point in enumerate(points)
            ]
    return jobs


def choose(out: Path, jobs: Sequence[Job], count: int) -> None:
    """Write down which of a method's trials on a data set was the best on the validation data.

    With it stands what the search cost: its trials, how many of them diverged or were refused, and
    the seconds of training of those that came to an end.

    :param jobs: The trials, of one method and one data set.
    :raises ValueError: Where one of them is not finished: another process is at it, or it broke.
    """
    for job in jobs:
        if not job.ended(out):
            raise ValueError(
                f"All trials should be finished before one is chosen. Found `{job.folder(out)}` "
                "unfinished. Run the same command again."
            )
    paths = [job.folder(out) / RECORD for job in jobs]
    found = [read(path, COMPARED) for path in paths if path.exists()]
    finite = [record for record in found if math.isfinite(record["validation"])]
    # Where all diverged, the runs will show it with the defaults.
    best: Mapping[str, Any] = max(
        finite, key=lambda record: record["validation"], default={"arguments": {}}
    )
    cost = {
        "trials": len(jobs),
        "failed": len(jobs) - len(finite),
        "search_seconds": sum(record["seconds"] for record in found),
    }
    write(chosen(replace(jobs[0], tuned=count), out), {**best, **cost})


def cost(out: Path, data: str, tuned: int) -> str:
    """What a search on a data set cost, in words; empty where it is not known.

    :param data: The data set's label.
    """
    paths = out.glob(f"search/{Choice.parse(data).folder}/*/chosen-{tuned}.json")
    what, way_out = "the choice of a search", "Delete it: the search chooses again."
    found = [read_json(path, what, way_out, _cost) for path in paths]
    if not found or any(_COST.keys() - one for one in found):
        return ""
    made = sum(one["trials"] for one in found)
    seconds = sum(one["search_seconds"] for one in found)
    return f"{counted(made, 'trial')}, {duration(seconds)} of training"


def _cost(found: Any) -> dict[str, Any]:
    shaped(found, {})
    return dict(shaped(found, {name: kind for name, kind in _COST.items() if name in found}))
