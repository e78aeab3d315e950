"""What training costs under every method: FLOPs, memory and time, beside joint training.

Measured on a training in small: all epochs of the recipe and all of the method's own schedule, on
four batches of the training data and as large a share of the validation data. So what a method does
only late, rarely or once is in it, at its real weight. Everything is per batch of the loader,
however many updates a method makes of it.

`flops` are those of matrix products, convolutions and attention, as
`torch.utils.flop_counter.FlopCounterMode` knows them, forwards and backwards, of the updates and of
what a method computes before and after its epochs: pre-training, probing, fitting on validation
data. Choosing an epoch on the validation data is not in them.

`memory` is the most that is allocated at once within an update, in bytes: weights, gradients, the
optimizer's state, what the method keeps, the batch, activations. On the CPU the storages of all
tensors that an operation returned count while they live, which is the same on every machine; what
an operation allocates within itself is not seen. On a GPU it is torch's `max_memory_allocated`.

`seconds` are those of the updates, fetching included, what lies before and after an epoch not: of
processor time on the CPU, where other work may wait beside it, of the clock on a GPU.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from equivox.bench.experiment import Experiment
from equivox.bench.memory import meter
from equivox.bench.training import Training
from equivox.data import MultimodalData
from equivox.data.base import Samples
from equivox.method import Batch
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.bench.leaderboard import Line

BATCHES = 4
"""Of an epoch of the training in small."""


@dataclass(frozen=True)
class Cost:
    """What a batch costs.

    Attributes: `flops`; `memory` in bytes; `seconds`; `step`, the ratio of `seconds` to those of
    joint training, measured by turns in one process.
    """

    flops: float
    memory: float
    seconds: float
    step: float


UNKNOWN = Cost(math.nan, math.nan, math.nan, math.nan)


def measure(experiment: Experiment, device: str = "cpu") -> Cost:
    """The cost of a batch under the experiment's method, at its recipe's batch size.

    The random state outside is untouched.

    :raises ValueError: Where the method is refused on these data.
    :raises FloatingPointError: Where it diverges.

    >>> from equivox.bench.experiment import Experiment
    >>> joint = measure(Experiment("latent2", epochs=1))
    >>> agm = measure(Experiment("latent2", "agm", epochs=1))
    >>> agm.flops / joint.flops  # three passes
    3.0
    """
    with preserved_random_state():
        data = _small(experiment.resolved(experiment.load()))
        flops, memory = _counted(experiment, data, device)
        joint = replace(experiment, method="joint", arguments={})
        mine, others = _timed([experiment, joint], data, device)
    same = experiment.method == joint.method
    return Cost(flops, memory, mine, 1.0 if same else mine / others)


# ── a training in small ─────────────────────────────────────────────────────────────────────────


def _small(experiment: Experiment) -> MultimodalData:
    data = experiment.load()
    rows = min(BATCHES * (experiment.batch_size or 1), len(data.train))
    held = math.ceil(rows * len(data.validation) / len(data.train))
    train, validation = _part(data, "train", rows), _part(data, "validation", held)
    return replace(data, train=train, validation=validation)


def _part(data: MultimodalData, split: str, rows: int) -> Samples:
    order = torch.Generator().manual_seed(0)
    inputs, target, _ = next(iter(data.loader(split, rows, shuffle=True, generator=order)))
    return Samples(inputs, target)


def _built(experiment: Experiment, data: MultimodalData, device: str) -> Training:
    torch.manual_seed(experiment.seed)
    return Training(experiment.resolved(data), data, device)


def _updates(training: Training) -> Iterator[Callable[[], None]]:
    """The updates of an epoch, to be called."""
    training.balancer.train()
    for items in training.balancer.epoch(training.loader):
        batch = Batch.of(items).to(training.device)
        yield lambda batch=batch: _update(training, batch)  # type: ignore[misc]


def _update(training: Training, batch: Batch) -> None:
    loss = training.balancer(*batch.items())
    if loss.requires_grad:
        loss.backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


# ── counting ────────────────────────────────────────────────────────────────────────────────────


def _counted(experiment: Experiment, data: MultimodalData, device: str) -> tuple[float, float]:
    """FLOPs of a batch, and the peak of memory."""
    with ExitStack() as stack:
        counter = stack.enter_context(FlopCounterMode(display=False))
        memory = stack.enter_context(meter(device))
        training = _built(experiment, data, device)
        stack.callback(gc.unfreeze)
        gc.freeze()  # a collection before every update is cheap then
        epochs = range(training.experiment.epochs or 1)
        peaks = [_peak(update, memory) for _ in epochs for update in _updates(training)]
    return counter.get_total_flops() / (len(epochs) * len(training.loader)), max(peaks)


def _peak(update: Callable[[], None], memory: Any) -> float:
    """The peak of an update. Tensors in reference cycles live until they are collected: when that
    happens would otherwise be chance."""
    gc.collect()
    gc.disable()
    try:
        memory.reset()
        update()
        return float(memory.peak)
    finally:
        gc.enable()


# ── timing ──────────────────────────────────────────────────────────────────────────────────────


def _timed(experiments: list[Experiment], data: MultimodalData, device: str) -> list[float]:
    """The mean seconds of a batch, of trainings that take turns and the lead by turns.

    What is done for the first time takes longer, so an epoch of each is made and not counted.
    """
    for experiment in experiments:
        _seconds(_built(experiment, data, device))
    trainings = [_built(experiment, data, device) for experiment in experiments]
    found: list[list[float]] = [[] for _ in trainings]
    for epoch in range(trainings[0].experiment.epochs or 1):
        for i in range(len(trainings))[:: 1 if epoch % 2 else -1]:
            found[i].append(_seconds(trainings[i]))
    return [fmean(seconds) for seconds in found]


def _seconds(training: Training) -> float:
    """Of an epoch: the median update, times the number of updates, over that of batches."""
    found = []
    updates = _updates(training)
    start = _now(training.device)
    for update in updates:
        update()
        now = _now(training.device)
        found.append(now - start)
        start = now
    # Before the first update lies what the method does before the epoch.
    return median(found[1:] or found) * len(found) / len(training.loader)


def _now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


# ── accuracy against cost ───────────────────────────────────────────────────────────────────────


def pareto(lines: Iterable[Line], cost: str = "flops") -> list[str]:
    """The methods that none beats: by a better metric at no more cost, or the same one for less.

    :param lines: Of one board. Lines whose cost is not known are left out.
    :param cost: "flops", "memory", "step" or "time".
    """
    known = [line for line in lines if not math.isnan(getattr(line, cost))]

    def beats(other: Line, line: Line) -> bool:
        a, b = ((getattr(x, cost), -x.metric.mean) for x in (other, line))
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    return [line.method for line in known if not any(beats(other, line) for other in known)]
