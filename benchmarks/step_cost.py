"""What a training step costs under every method, as a ratio to the same step in plain torch.

    python benchmarks/step_cost.py [--methods joint,ogm_ge] [--rounds 15] [--out DIR]

Two loads: `compute`, two small ResNets on 3 x 64 x 64 with batches of 32, and `overhead`, two
small MLPs. All methods are timed in turn within every round, in one process on one thread; a ratio
is taken within a round, and the median over the rounds is reported. What a method does once an
epoch is not in it. Everything is per batch of the loader, however many steps a method makes of it.

`bound` is the ratio that the passes alone would cost: every traversal of an encoder is counted by
hooks, one unit forwards and two backwards, also in copies that a method keeps. `memory` is the
ratio of the peaks within a step, parameters, gradients and momentum included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import equivox as ev
from equivox.method import Method

CLASSES = 6


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(out), nn.BatchNorm2d(out)])
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(y)) + self.shortcut(x)).relu()


class Encoder(nn.Sequential):
    """An encoder, by whose class its copies are found wherever a method keeps them."""


def resnet() -> Encoder:
    """A small ResNet for 3 x 64 x 64, 64 features."""
    blocks = [Block(3, 16, 2), Block(16, 32, 2), Block(32, 64, 2)]
    return Encoder(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mlp() -> Encoder:
    """A small MLP for 32 numbers, 64 features."""
    return Encoder(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())


@dataclass(frozen=True)
class Load:
    """Encoders and the shape of a sample."""

    name: str
    encoder: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    steps: int  # in a round


LOADS = (Load("compute", resnet, (3, 64, 64), 32, 2), Load("overhead", mlp, (32,), 32, 20))


class Data(torch.utils.data.Dataset[Any]):
    """As many samples as a round takes."""

    def __init__(self, load: Load) -> None:
        generator = torch.Generator().manual_seed(0)
        size = load.batch * load.steps
        self.inputs = {m: torch.randn(size, *load.shape, generator=generator) for m in "ab"}
        self.target = torch.arange(size) % CLASSES

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, i: int) -> Any:
        return {m: x[i] for m, x in self.inputs.items()}, self.target[i], torch.tensor(i)

    def batches(self, load: Load) -> list[Any]:
        """The batches of an epoch, ready."""
        starts = range(0, len(self), load.batch)
        parts = [torch.arange(s, s + load.batch) for s in starts]
        return [({m: x[i] for m, x in self.inputs.items()}, self.target[i], i) for i in parts]


class Ready:
    """A loader without a cost of its own."""

    def __init__(self, load: Load) -> None:
        self.dataset = Data(load)
        self.batch_size = load.batch
        self.collate_fn = torch.utils.data.default_collate
        self.ready = self.dataset.batches(load)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.ready)

    def __len__(self) -> int:
        return len(self.ready)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of both sides."""
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4)


class Plain:
    """The step written by hand."""

    def __init__(self, load: Load) -> None:
        torch.manual_seed(0)
        self.net = nn.ModuleDict({m: load.encoder() for m in "ab"})
        self.head = nn.Linear(128, CLASSES)
        self.modules = nn.ModuleList([self.net, self.head])
        self.optimizer = sgd(self.modules.parameters())
        self.loader = Ready(load)

    def epoch(self) -> Iterator[Callable[[], None]]:
        """The steps of an epoch, to be called."""
        for inputs, target, _ in self.loader:
            yield lambda inputs=inputs, target=target: self.step(inputs, target)  # type: ignore[misc]

    def step(self, inputs: dict[str, Tensor], target: Tensor) -> None:
        """One step."""
        features = torch.cat([self.net[m](inputs[m]) for m in "ab"], 1)
        nn.functional.cross_entropy(self.head(features), target).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Balanced:
    """The same step through a balancer."""

    def __init__(self, load: Load, method: Method) -> None:
        torch.manual_seed(0)
        encoders = {m: load.encoder() for m in "ab"}
        model = ev.Multimodal(encoders, ev.Concat(dict.fromkeys("ab", 64), CLASSES))
        self.loader = Ready(load)
        self.balancer = ev.Balancer(
            model, method, task=ev.Classification(CLASSES), validation=self.loader.ready
        )
        self.modules: nn.Module = self.balancer
        self.optimizer = self.balancer.attach(sgd(self.balancer.parameters()))

    def epoch(self) -> Iterator[Callable[[], None]]:
        """The steps of an epoch, to be called."""
        for batch in self.balancer.epoch(self.loader):
            yield lambda batch=batch: self.step(*batch)  # type: ignore[misc]

    def step(self, *batch: Any) -> None:
        """One step."""
        self.balancer(*batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def seconds(side: Plain | Balanced) -> tuple[float, int]:
    """The time of an epoch, per batch of the loader, and how many steps were made in it.

    It is that of fetching batches and stepping on them. What is done before the first batch and
    after the last is left out: a method may measure there.
    """
    total, count, steps = 0.0, 0, side.epoch()
    step = next(steps, None)
    while step is not None:
        start = time.perf_counter()
        step()
        stepped = time.perf_counter()
        step, count = next(steps, None), count + 1
        total += (stepped if step is None else time.perf_counter()) - start
    return total / len(side.loader), count


def passes(side: Plain | Balanced) -> float:
    """Traversals of encoders per step: one unit forwards, two backwards. Copies count as well."""
    units, count = [0], 0

    def counted(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        units[0] += 1
        if output.requires_grad:
            output.register_hook(lambda _: units.__setitem__(0, units[0] + 2))

    for step in side.epoch():  # hooks for the step alone, not for what is measured between epochs
        found = [module for module in side.modules.modules() if isinstance(module, Encoder)]
        handles = [module.register_forward_hook(counted) for module in found]
        step()
        count += 1
        for handle in handles:
            handle.remove()
    return units[0] / count


def peak(side: Plain | Balanced) -> int:
    """The largest memory within a step, in bytes, with what is kept between steps."""
    kept = 3 * sum(p.nbytes for p in side.modules.parameters())
    kept += sum(b.nbytes for b in side.modules.buffers())
    steps = side.epoch()
    step = next(steps)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    for step in steps:
        step()
    running = largest = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            running += event.nbytes()
            largest = max(largest, running)
    return kept + largest


@dataclass(frozen=True)
class Cost:
    """A row of the table."""

    load: str
    method: str
    ratio: float
    bound: float
    over_bound: float
    memory: float
    microseconds: float
    extra_microseconds: float


def measure(load: Load, names: list[str], rounds: int) -> list[Cost]:
    """The costs of the named methods on a load."""
    plain = Plain(load)
    sides = {name: Balanced(load, built(name)) for name in names}
    for side in (plain, *sides.values()):
        for _ in range(2):
            seconds(side)
    times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    for _ in range(rounds):
        before, _ = seconds(plain)
        for name, side in sides.items():
            mine, steps = seconds(side)
            after, _ = seconds(plain)
            times[name].append((mine, min(before, after), steps))
            before = after
    return [cost(load, name, sides[name], times[name], plain) for name in names]


def cost(
    load: Load, name: str, side: Balanced, times: list[tuple[float, float, int]], plain: Plain
) -> Cost:
    """A method's row, from its rounds: its own time, that of plain torch, and its steps."""
    each = passes(side) / passes(plain) / load.steps  # of a step
    return Cost(
        load.name,
        name,
        statistics.median(mine / other for mine, other, _ in times),
        statistics.median(each * steps for _, _, steps in times),
        statistics.median(mine / other / (each * steps) for mine, other, steps in times),
        peak(side) / peak(plain),
        statistics.median(mine for mine, _, _ in times) * 1e6,
        statistics.median(mine - other for mine, other, _ in times) * 1e6,
    )


def built(name: str) -> Method:
    """A method that shows all of itself from the first epoch on."""
    if name == "ogm":
        return ev.OGMGE(noise=False)
    found = ev.methods.get(name)
    return found(**found.brief)


def table(rows: list[Cost]) -> str:
    """The costs as Markdown."""
    head = "| load | method | ratio | bound | ratio / bound | memory | µs a step | µs more |\n"
    lines = [
        f"| {r.load} | {r.method} | {r.ratio:.3f} | {r.bound:.2f} | {r.over_bound:.3f} | "
        f"{r.memory:.2f} | {r.microseconds:.0f} | {r.extra_microseconds:.0f} |"
        for r in rows
    ]
    return head + "| --- | --- |" + " ---: |" * 6 + "\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", default="", help="names with commas; all by default")
    parser.add_argument("--loads", default="compute,overhead", help="names with commas")
    parser.add_argument("--rounds", type=int, default=15, help="how often everything is timed")
    parser.add_argument("--out", type=Path, default=None, help="a folder for table and JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.methods.split(",") if arguments.methods else [*ev.methods.names(), "ogm"]
    loads = [load for load in LOADS if load.name in arguments.loads.split(",")]
    rows = [row for load in loads for row in measure(load, names, arguments.rounds)]
    print(table(rows))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        facts = {"torch": torch.__version__, "rounds": arguments.rounds, "threads": 1}
        written = json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1)
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "step_cost.json").write_text(written + "\n")
        (arguments.out / "step_cost.md").write_text(table(rows))


if __name__ == "__main__":
    main()
