"""A pair of processes that train runs together, started once for all tests that need them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from equivox.bench import checkpoint, training
from equivox.bench.ending import Terminated
from equivox.bench.experiment import Experiment
from equivox.bench.folder import Folder
from equivox.testing import Pair

Case = tuple[Experiment, Path, int | None]


def run(case: Case) -> dict[str, Any]:
    """One rank's part of a run, which the second rank asks to end after so many looks."""
    experiment, out, end = case
    looks = itertools.count(1)
    unused = experiment.build().leaves_unused
    written: list[str] = []
    save = checkpoint.save

    def noting(place: Path, *rest: Any) -> None:
        written.append(place.name)
        save(place, *rest)

    checkpoint.save = noting
    try:
        result = training._trained(
            experiment,
            experiment.load(),
            Folder(out, experiment, resume=True),
            lambda: dist.get_rank() == 1 and next(looks) == end,
            watch=None,
            measure=None,
            device="cpu",
            every=None,
            wrap=lambda b: nn.parallel.DistributedDataParallel(b, find_unused_parameters=unused),
        )
    except Terminated as ended:
        return {"ended": str(ended), "written": written}
    finally:
        checkpoint.save = save
    state = result.balancer.state_dict() if result.balancer is not None else {}
    weights = {name: x.tolist() for name, x in state.items() if name != "_extra_state"}
    return {"weights": weights, "written": written, "last": result.last}


class Runs(Pair):
    """Two processes that train runs together."""

    def __init__(self) -> None:
        super().__init__(run)

    def run(self, experiment: Experiment, out: Path, end: int | None = None) -> list[Any]:
        """What both ranks found of a run in a folder, new or begun."""
        if not out.exists():
            Folder(out, experiment)
        return self.ask((experiment, out, end))
