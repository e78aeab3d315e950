"""What came out of a training, and under which conditions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.bench.experiment import Experiment
from equivox.bench.files import NUMBERS, read_json, shaped
from equivox.bench.folder import RESULT, versions

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.data import MultimodalData

Record = dict[str, Any]

_TESTED = {"epoch": int, **dict.fromkeys(("validation", "test", "branches", "unimodal"), NUMBERS)}
_KEPT = {"epochs": int, "seconds": float, "parameters": NUMBERS, "protocol": {"fingerprint": str}}
_SHAPE = {"experiment": {}, "last": _TESTED, "best": _TESTED, **_KEPT}

SELECTION = "the epoch with the best validation metric, the latest of equals"


def worth(metrics: Mapping[str, float], monitor: str) -> float:
    """The metric that epochs are chosen and methods are compared by, the larger the better."""
    return -metrics[monitor] if monitor == "loss" else metrics[monitor]


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
        balancer: trained, with the weights of the last epoch; in memory only, and not of a training
            by several processes.
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
        """The result that `to_json` wrote; ValueError or TypeError for anything else."""
        shaped(plain, _SHAPE)
        return Result(**{**plain, "experiment": Experiment.from_json(plain["experiment"])})

    @staticmethod
    def read(folder: Path) -> Result:
        """The result of a finished run.

        Raises FileNotFoundError where there is none, ValueError where it is damaged.
        """
        again = f"`equivox train --resume {folder}`"
        try:
            way_out = f"Make it again with {again}."
            return read_json(Path(folder) / RESULT, "a result", way_out, Result.from_json)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"A finished run should hold `{RESULT}`. Found none in `{folder}`. Finish it with "
                f"{again}."
            ) from error


SETTINGS = ("optimizer", "lr", "momentum", "weight_decay", "clip", "batch_size", "epochs")
LATER_SETTINGS = (
    "schedule",
    "schedule_options",
    "warmup",
    "patience",
    "precision",
    "accumulate",
    "compile",
    "devices",
)
"""Named where they are set: the fingerprints of runs from before there were any remain."""


def protocol(experiment: Experiment, data: MultimodalData) -> dict[str, Any]:
    """What two runs must share for their numbers to be compared: all but method and seed."""
    usual = Experiment(experiment.data)
    later = {name: getattr(experiment, name) for name in LATER_SETTINGS}
    facts: dict[str, Any] = {
        "data": data.name,
        "data_options": json.loads(json.dumps(dict(data.options), default=str)),
        "samples": {split: len(getattr(data, split)) for split in ("train", "validation", "test")},
        "shapes": {name: list(shape) for name, shape in data.shapes.items()},
        "encoders": {name: type(net).__name__ for name, net in _encoders(data).items()},
        "fusion": experiment.fusion,
        "task": repr(data.task),
        **{name: getattr(experiment, name) for name in SETTINGS},
        **{name: value for name, value in later.items() if value != getattr(usual, name)},
        "selection": SELECTION,
        "versions": versions(),
    }
    text = json.dumps(facts, sort_keys=True).encode()
    return facts | {"fingerprint": hashlib.sha256(text).hexdigest()[:12]}


def _encoders(data: MultimodalData) -> Mapping[str, Any]:
    with torch.device("meta"):
        return data.encoders()
