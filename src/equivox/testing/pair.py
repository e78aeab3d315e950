"""A pair of processes that train together, started once for any number of cases."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from equivox.method import Method
from equivox.testing.problem import BATCH, SAMPLES, Problem, sgd, state

State = dict[str, Tensor]


def interleaved(batch: int) -> list[int]:
    """The samples in an order in which a batch is the batches of two ranks, one after the other."""
    blocks = range(0, SAMPLES, batch)
    return [i for b in blocks for rank in (0, 1) for i in range(b + rank, b + batch, 2)]


def train(method: Method, parallel: bool, accumulate: int) -> State:
    """Two epochs, in one process or as one of two, with `accumulate` micro-batches an update."""
    problem, batch = Problem(), BATCH // accumulate
    balancer = problem.balancer(method)
    optimizer = sgd(balancer)
    loader = problem.loader(batch, interleaved(batch))
    trained: Any = balancer
    if parallel:
        sampler: DistributedSampler[Any] = DistributedSampler(loader.dataset, shuffle=False)
        loader = DataLoader(loader.dataset, batch_size=batch // 2, sampler=sampler)
        unused = method.leaves_unused
        trained = nn.parallel.DistributedDataParallel(balancer, find_unused_parameters=unused)
    balancer.train()
    for _ in range(2):
        for number, items in enumerate(balancer.epoch(loader), start=1):
            last = number % accumulate == 0
            with trained.no_sync() if parallel and not last else nullcontext():
                (trained(*items) / accumulate).backward()
            if last:
                optimizer.step()
                optimizer.zero_grad()
    return state(balancer)


def made(path: str, arguments: Mapping[str, Any]) -> Method:
    """A method by `module:class` and its arguments."""
    module, _, name = path.partition(":")
    method: Method = getattr(importlib.import_module(module), name)(**arguments)
    return method


Case = tuple[str, Mapping[str, Any], int]


def trained(case: Case) -> dict[str, Any]:
    """One rank's final state, in plain values, of a method, its arguments and `accumulate`."""
    path, arguments, accumulate = case
    final = train(made(path, arguments), parallel=True, accumulate=accumulate)
    return {name: x.tolist() for name, x in final.items()}


def _serve(
    rank: int, rendezvous: str, connection: Connection, answer: Callable[[Any], Any]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    while (case := connection.recv()) is not None:
        try:
            torch.manual_seed(rank)  # what is drawn must not depend on the global generator
            connection.send(answer(case))
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")
    dist.destroy_process_group()


class Pair:
    """Two processes, each a rank; use as a context manager.

    Arguments:
        answer: what each does with a case, in plain values; can be pickled. By default it trains.
    """

    def __init__(self, answer: Callable[[Any], Any] = trained) -> None:
        self._answer = answer

    def __enter__(self) -> Self:
        context = mp.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        rendezvous = str(Path(self._folder.name) / "rendezvous")
        pipes = [context.Pipe() for _ in range(2)]
        self._connections = [here for here, _ in pipes]
        self._processes = [
            context.Process(
                target=_serve, args=(rank, rendezvous, there, self._answer), daemon=True
            )
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

    def ask(self, case: Any) -> list[Any]:
        """The answers of both ranks; AssertionError where one waits for ever or fails."""
        for connection in self._connections:
            connection.send(case)
        answers = []
        for connection in self._connections:
            if not connection.poll(300):
                raise AssertionError("Both ranks should finish. Found one that waits for ever.")
            answers.append(connection.recv())
        for answer in answers:
            if isinstance(answer, str):
                raise AssertionError(f"A rank should train without error. Found {answer}")
        return answers

    def train(self, method: type[Method], arguments: Mapping[str, Any], accumulate: int) -> Any:
        """The final states of both ranks."""
        case = (f"{method.__module__}:{method.__qualname__}", dict(arguments), accumulate)
        return [{k: torch.tensor(v) for k, v in answer.items()} for answer in self.ask(case)]
