"""The search for hyper-parameters: trials on validation data, and the choice among them.

The hyper-parameters are drawn by a seed of their own, and the trials train with another that no
reported run has.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivox.bench.compare import SEARCH_SEED, Choice, Job, chosen
from equivox.bench.experiment import Experiment
from equivox.bench.folder import write
from equivox.bench.pace import duration
from equivox.bench.reading import read_json, shaped
from equivox.bench.records import RECORD, read

if TYPE_CHECKING:
    from equivox.method import Method

DRAW_SEED = 0
"""Of the order in which hyper-parameters are tried."""


def trials(method: type[Method], modalities: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The hyper-parameters of a search: the defaults, then draws from the method's space.

    Always in the same order, without repetition, and fewer than `count` where there are fewer.
    """
    space = method.space(modalities)
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
    from equivox.methods import get

    jobs = []
    for d in data:
        modalities = Experiment(d.name, data_options=d.options).load().modalities
        for m in methods:
            points = trials(get(m.name), modalities, count)
            jobs += [
                Job(d, m, SEARCH_SEED, epochs, number, point, patience=patience)
                for number, point in enumerate(points)
            ]
    return jobs


def choose(out: Path, jobs: Sequence[Job], count: int) -> None:
    """Write down which of a method's trials on a data set was the best on the validation data.

    With it stands what the search cost: its trials, how many of them diverged or were refused, and
    the seconds of training of the others.

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
    compared = {"validation": float, "arguments": {}}
    found = [read(path, compared) for path in paths if path.exists()]
    # Where all diverged, the runs will show it with the defaults.
    best: Mapping[str, Any] = max(
        found, key=lambda record: record["validation"], default={"arguments": {}}
    )
    cost = {
        "trials": len(jobs),
        "failed": len(jobs) - len(found),
        "search_seconds": sum(record.get("seconds", 0.0) for record in found),
    }
    write(chosen(replace(jobs[0], tuned=count), out), {**best, **cost})


def cost(out: Path, data: str, tuned: int) -> str:
    """What a search on a data set cost, in words; empty where it is not known.

    :param data: The data set's label.
    """
    paths = out.glob(f"search/{Choice.parse(data).folder}/*/chosen-{tuned}.json")
    what, way_out = "the choice of a search", "Delete it: the search chooses again."
    found = [read_json(path, what, way_out, lambda one: shaped(one, {})) for path in paths]
    if not found or any("search_seconds" not in one for one in found):
        return ""
    made = sum(one["trials"] for one in found)
    seconds = sum(one["search_seconds"] for one in found)
    return f"{made} trials, {duration(seconds)} of training"
