"""One training from an experiment to its result: in memory, or in a folder that can be resumed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from equivox.balancer import Balancer
from equivox.bench import checkpoint
from equivox.bench.experiment import Experiment
from equivox.bench.folder import BEST, CONFIG, RESULT, Folder, read_experiment, versions
from equivox.data import MultimodalData
from equivox.fusion import FUSIONS
from equivox.method import Batch
from equivox.model import Multimodal, Output
from equivox.randomness import preserved_random_state

Record = dict[str, Any]
Watch = Callable[[Record], None]
Measure = Callable[[Balancer, MultimodalData], Mapping[str, float]]

SELECTION = "the epoch with the best validation metric, the latest of equals"


class Terminated(Exception):
    """The process was asked to end (SIGTERM), and a checkpoint was written."""


@dataclass(frozen=True)
class Result:
    """What came out of a training.

    Arguments:
        experiment: with every setting filled in.
        last, best: of the last epoch, and of that selected on the validation data: its `epoch`
            (from 0), the metrics on `validation` and `test`, and for each modality `branches`, the
            task's main metric of its share of the fused logits on the test data, and `unimodal`,
            that of its own head where there is one.
        epochs: made.
        seconds: of training alone, without measuring.
        parameters: of the `model` as it was built, and those that the `method` added.
        protocol: what another run must share to be compared, and its `fingerprint`.
        history: the record of every epoch; in memory only.
        predictions: logits `last` and `best` and the `target` of the test samples; in memory, and
            beside the result on the disk.
        balancer: trained, with the weights of the last epoch; in memory only.
    """

    experiment: Experiment
    last: Mapping[str, Any]
    best: Mapping[str, Any]
    epochs: int
    seconds: float
    parameters: Mapping[str, int]
    protocol: Mapping[str, Any]
    history: tuple[Record, ...] = field(default=(), repr=False, compare=False)
    predictions: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    balancer: Balancer | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The fields that are kept on the disk, in plain values."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        return kept | {"experiment": self.experiment.to_json()}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Result:
        """The result that `to_json` wrote."""
        return Result(**{**plain, "experiment": Experiment.from_json(plain["experiment"])})

    @staticmethod
    def read(folder: Path) -> Result:
        """The result of a finished run.

        Raises FileNotFoundError where there is none, ValueError where it is damaged.
        """
        try:
            return Result.from_json(json.loads((Path(folder) / RESULT).read_bytes()))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"A finished run should hold `{RESULT}`. Found none in `{folder}`. Finish it with "
                f"`equivox train --resume {folder}`."
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"`{RESULT}` of `{folder}` should hold a result. Found: {error}. Make it again "
                f"with `equivox train --resume {folder}`."
            ) from error


def train(
    experiment: Experiment,
    out: Path | None = None,
    *,
    resume: bool = False,
    watch: Watch | None = None,
    measure: Measure | None = None,
    device: str = "cpu",
) -> Result:
    """Train, choose an epoch on the validation data, and look at the test data once, at the end.

    Arguments:
        experiment: what to train.
        out: the run's folder, from which it can be resumed; in memory only where None.
        resume: go on with the run in `out`. The result is bit for bit that of a run without a cut.
        watch: is given the record of every epoch, with its `seconds`.
        measure: further numbers of every epoch, from the balancer and the data; they join the
            record. The random state is kept around it.
        device: where to train.

    The random state outside is untouched. SIGTERM, with a folder and in the main thread, ends the
    run after the present update with a checkpoint.

    Raises Terminated after SIGTERM, FloatingPointError for a loss that is not finite, and what
    `Folder` raises.

    >>> result = train(Experiment("latent2", epochs=1, data_options={"samples": 600}))
    >>> sorted(result.last["test"])
    ['accuracy', 'f1', 'loss']
    """
    if resume and out is None:
        raise ValueError("A run is resumed from its folder. Found `out = None`. Pass `out`.")
    data = experiment.load()
    with preserved_random_state(), _termination(out is not None) as terminated:
        _seed(experiment.seed)
        training = Training(experiment.resolved(data), data, device)
        folder = None if out is None else Folder(out, experiment, resume)
        if folder is not None and resume:
            training.resume(folder)
        while not training.finished:
            training.epoch(folder, terminated, measure, watch)
        result = training.result(folder)
    if folder is not None:
        folder.finish(result.to_json(), result.predictions)
    return result


def restored(path: Path, device: str = "cpu") -> Training:
    """The training of a finished run's folder, with the weights that were selected, in eval mode.

    The random state outside is untouched. Raises FileNotFoundError for a run that is not there or
    not finished, ValueError for one that is damaged or of another version.
    """
    path = Path(path)
    experiment = read_experiment(path)
    Result.read(path)
    data = experiment.load()
    with preserved_random_state():
        _seed(experiment.seed)
        training = Training(experiment.resolved(data), data, device)
        kept = checkpoint.load(path / BEST)
        try:
            training.balancer.load_state_dict(kept["balancer"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"The weights of a run should be those of its network. Found in `{path / BEST}`: "
                f"{error} Read it with the version that wrote it, see its `{CONFIG}`."
            ) from error
    training.balancer.eval()
    return training


class Training:
    """A training in progress: the balancer, its loader and optimizer, and the records so far."""

    def __init__(self, experiment: Experiment, data: MultimodalData, device: str = "cpu") -> None:
        self.experiment = experiment
        self.data = data
        self.device = _device(device)
        order = torch.Generator().manual_seed(experiment.seed)  # the same for every method
        self.loader = data.loader("train", experiment.batch_size, generator=order)
        fusion = FUSIONS[experiment.fusion or data.fusion](data.widths, data.outputs)
        model = Multimodal(data.encoders(), fusion).to(self.device)
        self.parameters = {"model": _count(model)}
        self.balancer = Balancer(
            model,
            experiment.build(),
            task=data.task,
            validation=data.loader("validation"),
            seed=experiment.seed,
            clip=experiment.clip,
        ).to(self.device)
        self.parameters["method"] = _count(self.balancer) - self.parameters["model"]
        optimizer = experiment.optimizer_for(self.balancer.parameters())
        self.optimizer = self.balancer.attach(optimizer)
        self.records: list[Record] = []
        self.best: Record | None = None
        self.best_state: Any = None
        self.seconds = 0.0
        self._forget_losses()

    @property
    def finished(self) -> bool:
        """Whether all epochs are made."""
        return len(self.records) == self.experiment.epochs

    # ── an epoch ────────────────────────────────────────────────────────────────────────────────

    def epoch(
        self,
        folder: Folder | None,
        terminated: Callable[[], bool],
        measure: Measure | None,
        watch: Watch | None,
    ) -> None:
        """Train one epoch, or the rest of one, and keep what is known after it."""
        before = self.seconds
        self._train(folder, terminated)
        record = self._record(measure)
        self.records.append(record)
        self._forget_losses()
        if folder is not None:
            folder.add_metrics(record)
        self._select(record, folder)
        self.save(folder)
        if watch is not None:
            watch(record | {"seconds": self.seconds - before})
        if terminated() and not self.finished:
            raise _terminated(folder)

    def _train(self, folder: Folder | None, terminated: Callable[[], bool]) -> None:
        self.balancer.train()
        start = time.perf_counter()
        for items in self.balancer.epoch(self.loader):
            self._update(Batch.of(items).to(self.device))
            if terminated():
                self.seconds += time.perf_counter() - start
                self.save(folder)
                raise _terminated(folder)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - start

    def _update(self, batch: Batch) -> None:
        loss = self.balancer(*batch.items())
        if loss.requires_grad:
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        rows = len(next(iter(batch.inputs.values())))
        self._loss += loss.detach() * rows
        self._rows += rows

    def _forget_losses(self) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self._rows = 0

    def _record(self, measure: Measure | None) -> Record:
        validation, _ = self.evaluate("validation")
        loss = float(self._loss) / max(self._rows, 1)
        record = {"epoch": len(self.records), "loss": loss, "validation": validation}
        if measure is not None:
            with preserved_random_state(self.loader):
                record |= measure(self.balancer, self.data)
        return record

    def _select(self, record: Record, folder: Folder | None) -> None:
        if self.best is not None and self._worth(record) < self._worth(self.best):
            return
        self.best = record
        self.best_state = copy.deepcopy(self.balancer.state_dict())
        if folder is not None:
            kept = {"epoch": record["epoch"], "balancer": self.best_state}
            checkpoint.save(folder.best, kept, self._learning())

    def _worth(self, record: Record) -> float:
        """What selection maximises."""
        monitor = self.balancer.task.monitor
        value: float = record["validation"][monitor]
        if math.isnan(value):
            return -math.inf
        return -value if monitor == "loss" else value

    # ── measuring ───────────────────────────────────────────────────────────────────────────────

    def evaluate(self, split: str) -> tuple[dict[str, Any], Record]:
        """The metrics of the prediction on a split, and its rows: logits, target, branches."""
        rows = self.balancer.collect(self.data.loader(split), self._rows_of)
        return self._metrics(rows["logits"], rows["target"]), rows

    def _rows_of(self, output: Output, batch: Batch) -> Record:
        return {
            "logits": self.balancer.method.predict(output),
            "target": batch.target,
            "branches": output.split,
            "unimodal": output.unimodal,
        }

    def _metrics(self, logits: Tensor, target: Tensor) -> dict[str, float]:
        metrics = self.balancer.task.metrics().to(self.device)
        found = {"loss": self.balancer.task.loss(logits, target), **metrics(logits, target)}
        return {name: float(value) for name, value in found.items()}

    def _tested(self, record: Record) -> tuple[dict[str, Any], Record]:
        """What the present weights do on the test data."""
        test, rows = self.evaluate("test")
        monitor = self.balancer.task.monitor
        found = {"epoch": record["epoch"], "validation": record["validation"], "test": test}
        for part in ("branches", "unimodal"):
            found[part] = {
                modality: self._metrics(logits, rows["target"])[monitor]
                for modality, logits in rows[part].items()
            }
        return found, rows

    def result(self, folder: Folder | None) -> Result:
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
    def _weights(self, state: Any) -> Iterator[None]:
        """Other weights inside, the present ones again outside."""
        present = copy.deepcopy(self.balancer.state_dict())
        self.balancer.load_state_dict(state)
        try:
            yield
        finally:
            self.balancer.load_state_dict(present)

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────

    def save(self, folder: Folder | None) -> None:
        """Keep all that going on from here needs."""
        if folder is None:
            return
        state = {
            "balancer": self.balancer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "records": self.records,
            "best": None if self.best is None else self.best["epoch"],
            "seconds": self.seconds,
            "loss": self._loss,
            "rows": self._rows,
        }
        checkpoint.save(folder.last, state, self._learning() | self._moments())

    def resume(self, folder: Folder) -> None:
        """Go on where the folder's checkpoint was written; from the start where there is none.

        Raises ValueError for a checkpoint that is damaged or another method's.
        """
        state = folder.checkpoint()
        if state is None:
            folder.restore_metrics([])
            return
        self.balancer.load_state_dict(state["balancer"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.records, self.seconds = state["records"], state["seconds"]
        self._loss, self._rows = state["loss"].to(self.device), state["rows"]
        if state["best"] is not None:
            self._resume_best(folder, state["best"])
        folder.restore_metrics(self.records)

    def _resume_best(self, folder: Folder, epoch: int) -> None:
        self.best = self.records[epoch]
        kept = checkpoint.load(folder.best)
        # A run cut between its two checkpoints has the better one already, and makes it again.
        if kept["epoch"] not in (epoch, len(self.records)):
            raise ValueError(
                f"The best checkpoint should be of epoch {epoch}. Found one of epoch "
                f"{kept['epoch']} in `{folder.best}`. Its folder was mixed with another one: train "
                "anew."
            )
        self.best_state = kept["balancer"]

    def _learning(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.balancer.named_parameters() if p.requires_grad}

    def _moments(self) -> dict[str, Tensor]:
        """The optimizer's tensors, by names for messages."""
        return {
            f"optimizer.{number}.{name}": value
            for number, state in enumerate(self.optimizer.state.values())
            for name, value in state.items()
            if isinstance(value, Tensor)
        }


def protocol(experiment: Experiment, data: MultimodalData) -> dict[str, Any]:
    """What two runs must share for their numbers to be compared: all but method and seed."""
    settings = ("optimizer", "lr", "momentum", "weight_decay", "clip", "batch_size", "epochs")
    facts: dict[str, Any] = {
        "data": data.name,
        "data_options": json.loads(json.dumps(dict(data.options), default=str)),
        "samples": {split: len(getattr(data, split)) for split in ("train", "validation", "test")},
        "shapes": {name: list(shape) for name, shape in data.shapes.items()},
        "encoders": {name: type(net).__name__ for name, net in _encoders(data).items()},
        "fusion": experiment.fusion,
        "task": repr(data.task),
        **{name: getattr(experiment, name) for name in settings},
        "selection": SELECTION,
        "versions": versions(),
    }
    text = json.dumps(facts, sort_keys=True).encode()
    return facts | {"fingerprint": hashlib.sha256(text).hexdigest()[:12]}


def _encoders(data: MultimodalData) -> Mapping[str, Any]:
    with torch.device("meta"):
        return data.encoders()


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`device` should be one that torch can use here. Found `{name}`: {reason} See "
            "`equivox doctor`."
        ) from error


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)


@contextmanager
def _termination(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come, instead of ending the process at once."""
    came: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _terminated(folder: Folder | None) -> Terminated:
    where = "" if folder is None else f" Go on with `--resume {folder.path}`."
    return Terminated(f"The run was asked to end, and its state is kept.{where}")
