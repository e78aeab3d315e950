"""`equivox train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivox.commands.options import Parser, option, seconds
from equivox.console import INTERRUPTED, TERMINATED, show, told

if TYPE_CHECKING:
    from equivox.bench.experiment import Experiment
    from equivox.bench.training import Result

ABOUT = "One run: configuration, metrics, checkpoints and result in one folder."

FIELDS = {
    "data": (str, "the data set's name, for example latent2"),
    "method": (str, "the method's name, see `equivox methods`; a + chains several"),
    "seed": (int, "seed of model, batches and method (0)"),
    "epochs": (int, "epochs (the data set's recipe)"),
    "batch_size": (int, "samples a batch (the recipe)"),
    "lr": (float, "learning rate (the recipe)"),
    "momentum": (float, "momentum of sgd (the recipe)"),
    "weight_decay": (float, "weight decay (the recipe)"),
    "optimizer": (str, "sgd, adam or adamw (sgd)"),
    "clip": (float, "the greatest norm of the gradient (none)"),
    "fusion": (str, "concat, sum, gated, film, attention or shared_head (the data set's)"),
    "schedule": (str, "of the rates: step, multistep, exponential or cosine (none)"),
    "warmup": (int, "epochs over which the rates rise, before the schedule (0)"),
    "patience": (int, "end after so many epochs without a better validation metric (never)"),
    "precision": (str, "of training forwards: 32, bf16, or 16 on a GPU (32)"),
    "accumulate": (int, "micro-batches that a batch is passed through in, for less memory (1)"),
    "compile": (bool, "compile encoders, fusion and heads"),
    "devices": (int, "processes that share every batch, each with its device (1)"),
    "strategy": (str, "of several devices: ddp (ddp)"),
}
"""The fields of an experiment that are options, with their types and helps."""


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "train", help="train a method on a data set", description=ABOUT
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a recipe in YAML; options here override it"
    )
    for name, (kind, text) in FIELDS.items():
        how: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
        words = "--" + name.replace("_", "-")
        parser.add_argument(words, default=argparse.SUPPRESS, help=text, **how)
    for words, target, text in (
        ("--set", "arguments", "a hyper-parameter of the method; repeat for more"),
        ("--option", "data_options", "an option of the data set; repeat for more"),
        (
            "--schedule-option",
            "schedule_options",
            "of the schedule, by torch's names, for example "
            "step_size=30 or gamma=0.1; repeat for more",
        ),
    ):
        parser.add_argument(
            words,
            dest=target,
            action="append",
            type=option,
            default=argparse.SUPPRESS,
            metavar="NAME=VALUE",
            help=text,
        )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder, a new one")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR")
    parser.add_argument("--device", default="cpu", help="where to train, for example cuda (cpu)")
    parser.add_argument(
        "--checkpoint-every",
        type=seconds,
        metavar="SECONDS",
        help="save in the middle of an epoch too; the result is the same (at its end alone)",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write every epoch's scalars for TensorBoard too"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="note the dynamics of every modality for `equivox diagnose`; the result is the same",
    )
    parser.add_argument("--quiet", action="store_true", help="do not print every epoch")
    return parser


def run(given: argparse.Namespace) -> int:
    """Train, or go on with a training."""
    folder, experiment = _asked(given)
    from equivox.bench.folder import CONFIG
    from equivox.bench.training import Terminated, train

    if not given.quiet:
        print(experiment, file=sys.stderr)
    resume = given.resume is not None
    options: dict[str, Any] = {"device": given.device, "every": given.checkpoint_every}
    if given.record or (resume and _recorded(folder)):
        from equivox.diagnosis import Recording

        options["measure"] = Recording()
    try:
        with _watching(given, folder) as watch:
            result = train(experiment, folder, resume=resume, watch=watch, **options)
    except Terminated as ended:
        return told(ended, TERMINATED)
    except KeyboardInterrupt:
        begun = (folder / CONFIG).exists()
        way = f" Go on with `equivox train --resume {folder}`." if begun else " Nothing was begun."
        return told(f"Interrupted.{way}", INTERRUPTED)
    _print_result(result, folder)
    return 0


def _recorded(folder: Path) -> bool:
    """Whether the run recorded its dynamics so far, by numbers named "curve/modality"."""
    from equivox.bench.folder import read_metrics

    return any("/" in name for record in read_metrics(folder)[-1:] for name in record)


@contextmanager
def _watching(
    given: argparse.Namespace, folder: Path
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What is told of every epoch."""
    watches: list[Callable[[Mapping[str, Any]], None]] = [] if given.quiet else [_print_epoch]
    with ExitStack() as stack:
        if given.tensorboard:
            from equivox.bench.tensorboard import Scalars

            watches.append(stack.enter_context(closing(Scalars(folder))))
        yield partial(_tell, watches)


def _tell(
    watches: Sequence[Callable[[Mapping[str, Any]], None]], record: Mapping[str, Any]
) -> None:
    for watch in watches:
        watch(record)


def _asked(given: argparse.Namespace) -> tuple[Path, Experiment]:
    """The folder and the experiment that the options describe."""
    asked = _recipe(given.config)
    asked |= {name: getattr(given, name) for name in FIELDS if hasattr(given, name)}
    for name in ("arguments", "data_options", "schedule_options"):
        if hasattr(given, name):
            asked[name] = asked.get(name, {}) | dict(getattr(given, name))
    if given.resume is not None:
        return given.resume, _resumed(given, asked)
    for name in ("data", "out"):
        if asked.get(name, getattr(given, name, None)) is None:
            raise ValueError(f"A run needs `--{name}`. Found none. See `equivox train --help`.")
    from equivox.bench.experiment import Experiment

    return given.out, Experiment(**asked)


def _recipe(path: Path | None) -> dict[str, Any]:
    """The fields of an experiment that a recipe sets."""
    if path is None:
        return {}
    from equivox.bench.recipe import read

    return read(path)


def _resumed(given: argparse.Namespace, asked: Mapping[str, Any]) -> Experiment:
    """The experiment of the folder, which the options may repeat and not change."""
    if given.out is not None and given.out.resolve() != given.resume.resolve():
        raise ValueError(
            f"A resumed run stays in its folder. Found `--resume {given.resume}` with "
            f"`--out {given.out}`. Leave `--out` out."
        )
    from equivox.bench.experiment import Experiment
    from equivox.bench.folder import read_experiment

    return Experiment.from_json(read_experiment(given.resume).to_json() | dict(asked))


def _print_epoch(record: Mapping[str, Any]) -> None:
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in record["validation"].items())
    line = f"epoch {record['epoch'] + 1}  train loss {record['loss']:.4f}  validation: {numbers}"
    print(f"{line}  ({record['seconds']:.1f} s)", file=sys.stderr)


def _print_result(result: Result, folder: Path) -> None:
    rows = []
    for what, found in (("last", result.last), ("selected on validation", result.best)):
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in found["test"].items())
        alone = "  ".join(f"{name} {value:.4f}" for name, value in found["unimodal"].items())
        rows.append((what, str(found["epoch"] + 1), metrics, alone))
    show(("weights", "epoch", "test", "by one modality's own logits"), rows)
    print(f"{result.epochs} epochs, {result.seconds:.1f} s of training: {folder}")
