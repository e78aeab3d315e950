"""The commands that repeat what a site shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from equivox.bench.experiment import Experiment, assignment
from equivox.methods import names

AGAIN = "again"
"""The folder that the commands write to: a new one, so that nothing is overwritten."""

_REPEATED = {"arguments": "--set", "data_options": "--option"}


def train(experiment: Experiment, folder: str) -> str:
    """The command of one training.

    :param folder: Of the run, relative to the comparison's; it is repeated below `again`.

    >>> train(Experiment("xor", "ogm_ge", 3, arguments={"alpha": 0.5}), "runs/xor/ogm_ge/seed-3")
    'equivox train --data xor --method ogm_ge --seed 3 --set alpha=0.5 --out
    again/xor/ogm_ge/seed-3'
    """
    usual = Experiment(experiment.data)
    words = ["equivox", "train", "--data", experiment.data, "--method", experiment.method]
    words += ["--seed", str(experiment.seed)]
    for name, (value, _) in experiment.differences(usual).items():
        if name in _REPEATED:
            for key, x in value.items():
                words += [_REPEATED[name], _assigned(key, x)]
        elif name not in ("method", "seed"):
            words += ["--" + name.replace("_", "-"), str(value)]
    return shlex.join([*words, "--out", AGAIN + folder.removeprefix("runs")])


def _assigned(name: str, value: Any) -> str:
    """`NAME=VALUE`, which is read as this value again: a word stays bare where it can."""
    bare = f"{name}={value}"
    same = isinstance(value, str) and assignment(bare) == (name, value)
    return bare if same else f"{name}={json.dumps(value)}"


def compare(
    data: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    like: Experiment,
    tuned: int,
    out: str = AGAIN,
) -> str:
    """The command that makes all runs of methods on data sets.

    Every method there is, is "all".

    :param like: Of which the epochs and the patience are.

    >>> compare(["latent2"], ["joint", "lfm"], 5, Experiment("latent2", patience=3), 0)
    'equivox compare --data latent2 --methods joint,lfm --seeds 5 --patience 3 --out again'
    """
    some = "all" if set(methods) == set(names()) else ",".join(methods)
    words = ["equivox", "compare", "--data", ",".join(data), "--methods", some]
    words += ["--seeds", str(seeds)]
    given: Mapping[str, int | None] = {
        "--epochs": like.epochs,
        "--patience": like.patience,
        "--search": tuned or None,
    }
    words += [word for option, n in given.items() if n is not None for word in (option, str(n))]
    return shlex.join([*words, "--out", out])
