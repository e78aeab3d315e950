"""A training in progress: epochs of updates, selection on validation data, checkpoints."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from equivox.balancer import Balancer
from equivox.bench import parallel, scores, snapshot
from equivox.bench.ending import terminated
from equivox.bench.experiment import Experiment
from equivox.bench.folder import Folder
from equivox.bench.result import Record, Result, protocol, worth
from equivox.data import MultimodalData
from equivox.distributed import averaged_, broadcast_, rank
from equivox.fusion import FUSIONS
from equivox.method import Batch
from equivox.model import Multimodal
from equivox.randomness import preserved_random_state

Watch = Callable[[Record], None]
Measure = Callable[[Balancer, MultimodalData], Mapping[str, float]]
Wrap = Callable[[Balancer], nn.Module]

HALVES = {"bf16": torch.bfloat16, "16": torch.float16}


class Training:
    """A training in progress: the balancer, its loader and optimizer, and the records so far.

    Arguments:
        experiment: resolved.
        data: what it names.
        device: where to train.
        wrap: makes of the balancer what several processes train together.

    Attributes: `folder`, where its state is kept, or None; `every`, the seconds from one checkpoint
    in the middle of an epoch to the next, or None for none; `records` of the epochs; `best`, the
    record that was selected, and `best_state`, the balancer's state after it; `seconds` of training
    so far; `loss`, the sum over the present epoch's `rows`.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: MultimodalData,
        device: str = "cpu",
        wrap: Wrap | None = None,
    ) -> None:
        self.experiment = experiment
        self.data = data
        self.device = torch.device(device)
        order = torch.Generator().manual_seed(experiment.seed)  # the same for every method
        batch_size = experiment.batch_size or data.recipe.batch_size
        self.loader = parallel.training_loader(data, batch_size, experiment.accumulate, order)
        scaled = experiment.precision == "16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.balancer = self._balancer()
        optimizer = experiment.optimizer_for(self.balancer.parameters())
        self.optimizer = self.balancer.attach(optimizer)
        self.scheduler = experiment.scheduler_for(self.optimizer)
        self.module = self.balancer if wrap is None else wrap(self.balancer)
        self.folder: Folder | None = None
        self.every: float | None = None
        self.records: list[Record] = []
        self.best: Record | None = None
        self.best_state: Any = None
        self.seconds = 0.0
        self._saved = time.monotonic()
        self._waiting = 0  # micro-batches since the last update
        self._forget_losses()

    def _balancer(self) -> Balancer:
        experiment, data = self.experiment, self.data
        fusion = FUSIONS[experiment.fusion or data.fusion](data.widths, data.outputs)
        model = Multimodal(data.encoders(), fusion).to(self.device)
        self.parameters = {"model": _count(model)}
        balancer = Balancer(
            model,
            experiment.build(),
            task=data.task,
            validation=parallel.measuring_loader(data, "validation"),
            seed=experiment.seed,
            clip=experiment.clip,
            scaler=self.scaler if self.scaler.is_enabled() else None,
        ).to(self.device)
        self.parameters["method"] = _count(balancer) - self.parameters["model"]
        return balancer

    @property
    def finished(self) -> bool:
        """Whether all epochs are made, or the last ones were in vain."""
        patience = self.experiment.patience
        worths = [self._worth(record) for record in self.records]
        if patience and worths and len(worths) - 1 - worths.index(max(worths)) >= patience:
            return True
        return len(self.records) == self.experiment.epochs

    # ── an epoch ────────────────────────────────────────────────────────────────────────────────

    def epoch(
        self, asked: Callable[[], bool], measure: Measure | None, watch: Watch | None
    ) -> None:
        """Train one epoch, or the rest of one, and keep what is known after it.

        Arguments: `asked`, whether to end early, with a checkpoint and Terminated; `measure` and
        `watch` as of `train`.
        """
        before, lr = self.seconds, self.optimizer.param_groups[0]["lr"]
        self._train(asked)
        record = self._record(measure)
        self.records.append(record)
        self._forget_losses()
        if self.scheduler is not None:
            self.scheduler.step()
        if self.folder is not None:
            self.folder.add_metrics(record)
        if watch is not None and rank() == 0:  # an epoch that is not saved yet is told once more
            watch(record | {"seconds": self.seconds - before, "lr": lr})
        selected = self._select(record)
        self.save()
        if selected and self.folder is not None:  # last: `restore` makes up for a cut before it
            snapshot.keep_best(self, self.folder)
        (ending,) = parallel.anywhere(asked())
        if ending and not self.finished and self.folder is not None:
            raise terminated(self.folder.path)

    def _train(self, asked: Callable[[], bool]) -> None:
        self.balancer.train()
        self._clock = time.perf_counter()
        for items in self.balancer.epoch(self.loader):
            self._update(Batch.of(items).to(self.device))
            if not self._waiting:
                self._look_up(asked)
        if self._waiting:  # a method that resamples may make any number of them
            self._step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        broadcast_(list(self.balancer.buffers()))  # what BatchNorm saw differs from rank to rank
        self._count_time()

    def _look_up(self, asked: Callable[[], bool]) -> None:
        """After an update: end where that is asked for, save where it is time."""
        due = self.every is not None and time.monotonic() - self._saved >= self.every
        ending, due = parallel.anywhere(asked(), due)
        if ending or due:
            self._count_time()
            self.save()
        if ending and self.folder is not None:
            raise terminated(self.folder.path)

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    def _update(self, batch: Batch) -> None:
        """A forward and backward pass, and the optimizer's step after the last of a batch."""
        rows = len(next(iter(batch.inputs.values())))
        half = HALVES.get(self.experiment.precision)
        with torch.autocast(self.device.type, half, enabled=half is not None):
            loss = self.module(*batch.items())
        if loss.requires_grad:
            self.scaler.scale(loss / self.experiment.accumulate).backward()
        self.loss += loss.detach() * rows
        self.rows += rows
        self._waiting += 1
        if self._waiting == self.experiment.accumulate:
            self._step()

    def _step(self) -> None:
        idle = (p.grad is None for p in self.balancer.parameters())
        if self.scaler.is_enabled() and all(idle):  # it would look for their gradients in vain
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()
        self._waiting = 0

    def _forget_losses(self) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.rows = 0

    # ── selection ───────────────────────────────────────────────────────────────────────────────

    def _record(self, measure: Measure | None) -> Record:
        validation, _ = self.evaluate("validation")
        averaged_([self.loss])
        loss = float(self.loss) / max(self.rows, 1)
        record = {"epoch": len(self.records), "loss": loss, "validation": validation}
        if self.scheduler is not None:
            record["lr"] = self.optimizer.param_groups[0]["lr"]
        if measure is not None:
            with preserved_random_state(self.loader):
                record |= measure(self.balancer, self.data)
        return record

    def _select(self, record: Record) -> bool:
        """Whether the present epoch is the best so far."""
        if self.best is not None and self._worth(record) < self._worth(self.best):
            return False
        self.best = record
        self.best_state = copy.deepcopy(self.balancer.state_dict())
        return True

    def _worth(self, record: Record) -> float:
        """What selection maximises."""
        value = worth(record["validation"], self.balancer.task.monitor)
        return -math.inf if math.isnan(value) else value

    # ── measuring ───────────────────────────────────────────────────────────────────────────────

    def evaluate(self, split: str) -> tuple[dict[str, float], Record]:
        """The metrics of the prediction on a split, and its rows; see `scores.collected`."""
        rows = scores.collected(self.balancer, parallel.measuring_loader(self.data, split))
        return scores.metrics(self.balancer.task, rows["logits"], rows["target"]), rows

    def _tested(self, record: Record) -> tuple[Record, Record]:
        """What the present weights do on the test data, and its rows."""
        test, rows = self.evaluate("test")
        found = {"epoch": record["epoch"], "validation": record["validation"], "test": test}
        return found | scores.shares(self.balancer.task, rows), rows

    def result(self) -> Result:
        """The result of all epochs; the test data are looked at here, and nowhere else."""
        if self.best is None:
            raise RuntimeError("A result is that of a training. Found no epoch. Train first.")
        last, rows = self._tested(self.records[-1])
        predictions = {"target": rows["target"], "last": rows["logits"]}
        best, predictions["best"] = last, rows["logits"]
        if self.best["epoch"] != last["epoch"]:
            with self._weights(self.best_state):
                best, rows = self._tested(self.best)
            predictions["best"] = rows["logits"]
        return Result(
            experiment=self.experiment,
            last=last,
            best=best,
            epochs=len(self.records),
            seconds=self.seconds,
            parameters=self.parameters,
            protocol=protocol(self.experiment, self.data),
            history=tuple(self.records),
            predictions={name: x.cpu() for name, x in predictions.items()},
            balancer=self.balancer,
        )

    @contextmanager
    def _weights(self, other: Any) -> Iterator[None]:
        """Other weights inside, the present ones again outside."""
        present = copy.deepcopy(self.balancer.state_dict())
        self.balancer.load_state_dict(other)
        try:
            yield
        finally:
            self.balancer.load_state_dict(present)

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        """Keep all that going on from here needs."""
        if self.folder is None:
            return
        self.folder.keep(self.folder.last, snapshot.taken(self), snapshot.finite(self))
        self._saved = time.monotonic()

    def resume(self, folder: Folder) -> None:
        """Go on where the folder's checkpoint was written; from the start where there is none.

        Raises ValueError for a checkpoint that is damaged or another method's.
        """
        found = folder.checkpoint()
        if found is None:
            folder.restore_metrics([])
        else:
            snapshot.restore(self, found, folder)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
