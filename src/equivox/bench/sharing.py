"""What several runs of a comparison would train alike is trained once and kept beside them.

    DIR/shared/<data>/<key>/   a checkpoint: the state, what it depends on and the seconds it took

Methods ask for it by `Run.recalled`. The key holds everything that such a training depends on, so
that a run is bit for bit what it would be alone. What a run took over is told in its own folder, in
`shared.json`, with the seconds that others spent on it: a cost counts what was needed, by whomever.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from equivox.bench import checkpoint
from equivox.bench.experiment import Experiment
from equivox.bench.files import NUMBERS, read_json, shaped, write
from equivox.bench.folder import versions
from equivox.randomness import random_state, to_json
from equivox.run import Run, State

TAKEN = "shared.json"


class Shared:
    """Answers `Run.recalled` in a comparison.

    Arguments:
        folder: where the shared states of the data set are kept.
        experiment: of the run.
        run: the run's own folder.
    """

    def __init__(self, folder: Path, experiment: Experiment, run: Path) -> None:
        self.folder = folder
        self.experiment = experiment
        self.run = run

    def __call__(self, run: Run, key: Mapping[str, Any], make: Callable[[], State]) -> State:
        start = time.perf_counter()
        facts = self._facts(run, key)
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{name}.lock"):
            kept = _kept(self.folder / name)
            if kept is None:
                return self._made(name, facts, make)
        # What passed here, also in waiting for another process, is in the run's own time already.
        self._tell(name, kept["seconds"] - (time.perf_counter() - start))
        state: State = kept["state"]
        return state

    def _facts(self, run: Run, key: Mapping[str, Any]) -> dict[str, Any]:
        plain = self.experiment.to_json()
        for name in ("method", "arguments"):
            del plain[name]
        return {
            "experiment": plain,
            "key": dict(key),
            "model": _hash(run.model.state_dict()),
            "optimizer": _groups(run),
            "random": to_json(random_state(run.loader)),
            "threads": torch.get_num_threads(),  # the order of a sum depends on it
            "versions": versions(),
        }

    def _made(self, name: str, facts: Mapping[str, Any], make: Callable[[], State]) -> State:
        start = time.perf_counter()
        state = make()
        seconds = time.perf_counter() - start
        told = {fact: facts[fact] for fact in ("experiment", "key", "threads", "versions")}
        checkpoint.save(self.folder / name, {"state": state, "seconds": seconds, "of": told})
        return state

    def _tell(self, name: str, seconds: float) -> None:
        write(self.run / TAKEN, taken(self.run) | {name: seconds})


def taken(run: Path) -> dict[str, float]:
    """What a run took over, with the seconds that it took others."""
    path = run / TAKEN
    if not path.exists():
        return {}
    what, way_out = "seconds by the keys of what was shared", "Delete it: they are lost."
    return read_json(path, what, way_out, lambda found: shaped(found, NUMBERS))


def _kept(folder: Path) -> Any:
    if not checkpoint.exists(folder):
        return None
    try:
        return checkpoint.load(folder)
    except ValueError:  # damaged: it is made again
        shutil.rmtree(folder)
        return None


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, x in state.items():
        plain = x.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _groups(run: Run) -> list[Any]:
    """The optimizer's settings, and which of the model's parameters are under them."""
    if run.balancer.optimizer is None:
        return []
    names = {id(p): name for name, p in run.model.named_parameters()}
    return [
        [
            {key: str(value) for key, value in group.items() if key != "params"},
            [names[id(p)] for p in group["params"] if id(p) in names],
        ]
        for group in run.balancer.optimizer.param_groups
    ]
