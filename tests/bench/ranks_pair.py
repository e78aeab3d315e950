"""Two processes that train runs together, started once for all tests that need them."""

from __future__ import annotations

import itertools
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from equivox.bench import checkpoint, training
from equivox.bench.ending import Terminated
from equivox.bench.experiment import Experiment
from equivox.bench.folder import Folder

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


def _serve(rank: int, rendezvous: str, connection: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    while (case := connection.recv()) is not None:
        try:
            connection.send(run(case))
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")
    dist.destroy_process_group()


class Ranks:
    """Two processes, each a rank; use as a context manager."""

    def __enter__(self) -> Self:
        context = mp.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        rendezvous = str(Path(self._folder.name) / "rendezvous")
        pipes = [context.Pipe() for _ in range(2)]
        self._connections = [here for here, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(rank, rendezvous, there), daemon=True)
            for rank, (_, there) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.send(None)
        for process in self._processes:
            process.join(10)
            process.kill()
        self._folder.cleanup()

    def run(self, experiment: Experiment, out: Path, end: int | None = None) -> list[Any]:
        """What both ranks found of a run in a folder, new or begun."""
        if not out.exists():
            Folder(out, experiment)
        for connection in self._connections:
            connection.send((experiment, out, end))
        for connection in self._connections:
            assert connection.poll(300), "a rank waits for ever"
        return [connection.recv() for connection in self._connections]
