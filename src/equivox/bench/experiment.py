"""An experiment: everything that a training depends on, in one frozen dataclass."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from equivox import data as datasets
from equivox import methods
from equivox.bench import rates
from equivox.bench.settings import check_known, check_number, check_whole, plain
from equivox.errors import nearest
from equivox.fusion import FUSIONS
from equivox.method import Chain, Method

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from equivox.data import MultimodalData

OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("32", "bf16", "16")
STRATEGIES = ("ddp",)


@dataclass(frozen=True)
class Experiment:
    """One training of a method on a data set; None stands for the data set's own recipe.

    Arguments:
        data: a data set's name, see `equivox.data.names`.
        method: a method's name, see `equivox.methods.names`; `+` chains several.
        seed: of the model's initialisation, the order of the batches and the method's draws.
        epochs, batch_size, lr, momentum, weight_decay: of the training.
        data_options: of the data set; its `seed` draws the data and is 0 by default.
        arguments: hyper-parameters of the method. In a chain, `method.name` where several methods
            have the name.
        optimizer: "sgd", the recipes' own, "adam" or "adamw", for which `lr` is to be given.
        clip: the greatest norm of the gradient.
        fusion: "concat", "sum", "gated", "film", "attention" or "shared_head".
        schedule: of the learning rates, after every epoch: "step", "multistep", "exponential" or
            "cosine"; None leaves them as they are.
        schedule_options: of the schedule, by the names of torch's class, such as `step_size` and
            `gamma`. "cosine" ends with the last epoch where no `T_max` is given.
        warmup: epochs over which the rates rise in even steps, before the schedule.
        patience: end after so many epochs in a row without a better validation metric.
        precision: of training forwards: "32", "bf16", or "16" with a scaled loss, on a GPU alone.
            Weights, and all measuring, are in 32.
        accumulate: micro-batches that a batch is passed through in, for less memory. It remains one
            update of `batch_size`, and the result is the same but for rounding, BatchNorm, a last
            batch that is not whole, which is left out, and for methods that work by micro-batches:
            their `exceptions` say so. `accumulation`, where a method has it, is set alike.
        compile: compile encoders, fusion and heads.
        devices: processes that train together, each with its device. `batch_size` is that of all,
            each takes an equal consecutive part of every batch; what is left over of a last batch
            is left out. The result is the same but for that, rounding, BatchNorm and dropout.
        strategy: of several devices; "ddp".

    Raises ValueError or TypeError for unknown names, with the nearest known one, and for values
    that cannot be.

    >>> Experiment("latent2", method="ogm_ge", arguments={"alpha": 0.8}).build()
    OGMGE(alpha=0.8, ...)
    """

    data: str
    method: str = "joint"
    seed: int = 0
    epochs: int | None = None
    data_options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    optimizer: str = "sgd"
    clip: float | None = None
    fusion: str | None = None
    schedule: str | None = None
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    warmup: int = 0
    patience: int | None = None
    precision: str = "32"
    accumulate: int = 1
    compile: bool = False
    devices: int = 1
    strategy: str = "ddp"

    def __post_init__(self) -> None:
        for name in ("data_options", "arguments", "schedule_options"):
            object.__setattr__(self, name, plain(name, getattr(self, name)))
        object.__setattr__(self, "precision", str(self.precision))  # YAML reads 32 as a number
        for name, known in self._known().items():
            if getattr(self, name) is not None or name not in ("fusion", "schedule"):
                check_known(name, getattr(self, name), known)
        for name, least in {"epochs": 1, "batch_size": 1, "patience": 1}.items():
            check_whole(name, getattr(self, name), least)
        for name, least in {"seed": 0, "warmup": 0, "accumulate": 1, "devices": 1}.items():
            check_whole(name, getattr(self, name), least, optional=False)
        for name in ("lr", "momentum", "weight_decay", "clip"):
            check_number(name, getattr(self, name), positive=name in ("lr", "clip"))
        if not isinstance(self.compile, bool):
            raise TypeError(f"`compile` should be true or false. Found `{self.compile!r}`.")
        rates.check(self.schedule, self.schedule_options)
        self._check_optimizer()
        self._check_parts()
        self.build()

    @staticmethod
    def _known() -> dict[str, Iterable[str]]:
        """The fields that are names, with those that are known."""
        return {
            "data": datasets.names(),
            "optimizer": OPTIMIZERS,
            "fusion": FUSIONS,
            "schedule": rates.SCHEDULES,
            "precision": PRECISIONS,
            "strategy": STRATEGIES,
        }

    def _check_parts(self) -> None:
        parts = self.devices * self.accumulate
        if self.batch_size is not None and self.batch_size % parts:
            raise ValueError(
                "`batch_size` should divide into equal parts for `devices` and `accumulate`. Found "
                f"{self.batch_size} for {self.devices} x {self.accumulate}. Pass a multiple of "
                f"{parts}."
            )

    def _check_optimizer(self) -> None:
        if self.optimizer == "sgd":
            return
        if self.lr is None:
            raise ValueError(
                f"`lr` should be given for `{self.optimizer}`. Found none, and the recipes' rates "
                "are those of `sgd`. Pass `lr`."
            )
        if self.momentum is not None:
            raise ValueError(
                f"`momentum` is an argument of `sgd`. Found it with `{self.optimizer}`. "
                "Leave it out."
            )

    # ── what it names ───────────────────────────────────────────────────────────────────────────

    def load(self) -> MultimodalData:
        """The data set."""
        return datasets.load(self.data, **self.data_options)

    def __str__(self) -> str:
        """The method, the data and the seed, and what else is not as by default."""
        named = ("data", "method", "seed")
        usual = vars(Experiment(self.data))
        others = {k: v for k, v in vars(self).items() if k not in named and v != usual[k]}
        told = ", ".join(f"{k} = {v}" for k, v in others.items())
        return f"{self.method} on {self.data}, seed {self.seed}" + (f": {told}" if told else "")

    def build(self) -> Method:
        """A new instance of the method, or of the chain."""
        if not isinstance(self.method, str):
            raise TypeError(f"`method` should be a name. Found `{self.method!r}`.")
        names = [name.strip() for name in self.method.split("+")]
        classes = {name: methods.get(name) for name in names}
        given: dict[str, dict[str, Any]] = {name: {} for name in classes}
        for argument, value in self.arguments.items():
            owner, name = _owner(argument, classes)
            given[owner][name] = value
        for name, method in classes.items():
            known = inspect.signature(method).parameters
            given[name] = {k: v for k, v in self._told().items() if k in known} | given[name]
        built = [classes[name](**given[name]) for name in names]
        return built[0] if len(built) == 1 else Chain(*built)

    def _told(self) -> dict[str, int]:
        """What methods have to know of the training, by the names of their arguments."""
        told = {"accumulation": self.accumulate} if self.accumulate > 1 else {}
        if self.epochs is not None:
            # What trains alone has as long as the rest, and in short trainings until it converges.
            alone = max(20, self.epochs)
            told |= {"epochs": self.epochs, "alone_epochs": alone, "teacher_epochs": alone}
        return told

    def resolved(self, data: MultimodalData) -> Experiment:
        """The same experiment with every None filled in from the data set's recipe."""
        recipe = asdict(data.recipe) | {"fusion": data.fusion}
        if self.optimizer != "sgd":
            del recipe["momentum"]
        return replace(self, **{k: v for k, v in recipe.items() if getattr(self, k) is None})

    def optimizer_for(self, parameters: Any) -> torch.optim.Optimizer:
        """The optimizer of a resolved experiment."""
        if self.lr is None or self.weight_decay is None:
            raise ValueError(
                "An optimizer is built from a resolved experiment. Found no `lr` or "
                "`weight_decay`. Call `resolved(data)` first."
            )
        if self.optimizer == "sgd":
            momentum = self.momentum or 0.0
            return torch.optim.SGD(
                parameters, lr=self.lr, momentum=momentum, weight_decay=self.weight_decay
            )
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def scheduler_for(self, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
        """What changes the rates of the optimizer after every epoch of a resolved experiment."""
        return rates.scheduler(
            optimizer, self.schedule, self.schedule_options, self.warmup, self.epochs or 1
        )

    # ── JSON ────────────────────────────────────────────────────────────────────────────────────

    def to_json(self) -> dict[str, Any]:
        """The fields in plain values."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Experiment:
        """The experiment that `to_json` wrote; ValueError for an unknown or missing field."""
        known = [f.name for f in fields(Experiment)]
        for name in plain:
            check_known("field of an experiment", name, known)
        if "data" not in plain:
            raise ValueError("An experiment should name its `data`. Found none.")
        return Experiment(**plain)

    def differences(self, other: Experiment) -> dict[str, tuple[Any, Any]]:
        """The fields in which two experiments differ, with both values."""
        mine, theirs = self.to_json(), other.to_json()
        return {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}


def assignment(text: str) -> tuple[str, Any]:
    """A name and its value, which is a number, a word, or anything in JSON or Python.

    >>> assignment("alpha=0.3"), assignment("noise=False"), assignment("z=tanh")
    (('alpha', 0.3), ('noise', False), ('z', 'tanh'))
    """
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ValueError(f"An option should be written NAME=VALUE. Found `{text}`.")
    for read in (json.loads, ast.literal_eval):
        try:
            return name.strip(), read(value)
        except (ValueError, SyntaxError):
            continue
    return name.strip(), value


def _owner(argument: str, classes: Mapping[str, type[Method]]) -> tuple[str, str]:
    """The method of the chain that takes this argument, and the argument's own name."""
    known = {
        f"{name}.{p.name}": (name, p.name)
        for name, method in classes.items()
        for p in inspect.signature(method).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)  # those of `nn.Module`
    }
    owners = [found for full, found in known.items() if argument in (full, found[1])]
    if len(owners) > 1:
        raise ValueError(
            f"`{argument}` should belong to one method of the chain. Found it in "
            f"{' and '.join(f'`{name}`' for name, _ in owners)}. Write "
            f"`{owners[0][0]}.{argument}`."
        )
    if not owners:
        names = set(known) if len(classes) > 1 else {p for _, p in known.values()}
        way_out = nearest(argument, names) if names else "It has none."
        raise ValueError(
            f"Hyper-parameters should be those of `{' + '.join(classes)}`. Found `{argument}`. "
            f"{way_out}"
        )
    return owners[0]
