"""The command line: `equivox demo`, `methods`, `train`, `diagnose`, `compare`, `data` and
`doctor`.

Exit codes: 0, it went well; 1, it failed; 2, what was asked for cannot be; 3, a condition of
`diagnose --fail-on` holds; 75, the run was asked to end and left a checkpoint; 130, it was
interrupted from the keyboard. Nothing slow is imported before a command needs it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from equivox.bench.experiment import Experiment
    from equivox.bench.training import Result

FAILED, REFUSED, TERMINATED, INTERRUPTED = 1, 2, 75, 130

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
}
"""The fields of an experiment that are options, with their types and helps."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = _parsed(words)
        code: int = COMMANDS[given.command](given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return _told("Interrupted. What was finished is kept.", INTERRUPTED)
    except ImportError as error:
        return _told(f'{error}. `pip install "equivox[bench]"` brings what is missing.', FAILED)
    except (ValueError, TypeError) as error:
        return _told(error, REFUSED)
    except (OSError, FloatingPointError) as error:
        return _told(error, FAILED)


def _told(message: object, code: int) -> int:
    print(f"equivox: {message}", file=sys.stderr)
    return code


# ── what was asked for ──────────────────────────────────────────────────────────────────────────


class Parser(argparse.ArgumentParser):
    """A parser whose options are written in full."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    @property
    def options(self) -> list[str]:
        """The names of its options."""
        return [name for action in self._actions for name in action.option_strings]


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser, commands = _parsers()
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in commands:
        _refuse("command", command, commands)
    given, rest = parser.parse_known_args(words)
    if rest:
        known = commands[given.command].options
        _refuse(f"option of `equivox {given.command}`", rest[0].partition("=")[0], known)
    return given


def _refuse(what: str, name: str, known: Sequence[str] | Mapping[str, Any]) -> NoReturn:
    from equivox.errors import nearest

    raise ValueError(f"The {what} should be a known one. Found `{name}`. {nearest(name, known)}")


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    from importlib.metadata import version

    parser = Parser(
        prog="equivox",
        description="Find out which modality a multimodal model neglects, and cure it.",
        epilog="Exit codes: 0 well, 1 failed, 2 refused, 3 a condition of --fail-on holds, "
        "75 ended with a checkpoint, 130 Ctrl-C.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"equivox {version('equivox')}",
        help="print the version and exit",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser, help="one of"
    )
    return parser, {name: add(commands) for name, add in PARSERS.items()}


def _demo_parser(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "demo", help="show an imbalance and its cure in two minutes", description=_DEMO
    )
    parser.add_argument("--seeds", type=_positive, default=3, help="runs of each method (3)")
    parser.add_argument(
        "--budget",
        type=_seconds,
        default=100.0,
        metavar="SECONDS",
        help="wall clock; on a slow machine fewer seeds are run (100)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("equivox-demo"),
        metavar="DIR",
        help="the folder of the page and the runs (equivox-demo)",
    )
    return parser


def _methods_parser(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "methods", help="list the methods of the field", description=_METHODS
    )
    parser.add_argument(
        "--category", metavar="C", help="one category alone, for example optimization"
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    return parser


def _train_parser(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "train", help="train a method on a data set", description=_TRAIN
    )
    for name, (kind, text) in FIELDS.items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=kind, default=argparse.SUPPRESS, help=text)
    for option, target, text in (
        ("--set", "arguments", "a hyper-parameter of the method; repeat for more"),
        ("--option", "data_options", "an option of the data set; repeat for more"),
    ):
        parser.add_argument(
            option,
            dest=target,
            action="append",
            type=_option,
            default=argparse.SUPPRESS,
            metavar="NAME=VALUE",
            help=text,
        )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder, a new one")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR")
    parser.add_argument("--device", default="cpu", help="where to train, for example cuda (cpu)")
    parser.add_argument("--quiet", action="store_true", help="do not print every epoch")
    return parser


def _diagnose_parser(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "diagnose",
        help="find out which modality a trained model neglects",
        description=_DIAGNOSE,
        epilog=_CONDITIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "subject",
        metavar="RUN_DIR_OR_SPEC",
        help="the folder of a finished run, or file.py:model,loaders[,task]: the names in that file"
        " of a Multimodal or a Balancer, of its loaders by split, and of a model's task",
    )
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write the page, and its JSON")
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="CONDITION",
        help="end with 3 where NAME OP NUMBER holds, see below; repeat for more",
    )
    parser.add_argument(
        "--epochs",
        type=_positive,
        default=100,
        help="the most that a modality is trained alone; it stops when it gets no better (100)",
    )
    return parser


def _compare_parser(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "compare", help="compare methods on data sets over seeds", description=_COMPARE
    )
    parser.add_argument(
        "--data", required=True, help="data sets with commas, NAME or NAME:OPTION=VALUE:…"
    )
    parser.add_argument(
        "--methods",
        default="all",
        help="methods with commas, all or NAME or NAME:ARGUMENT=VALUE:… (all)",
    )
    parser.add_argument("--seeds", type=_positive, default=5, help="runs of each method (5)")
    parser.add_argument("--epochs", type=_positive, help="epochs (the data set's recipe)")
    parser.add_argument(
        "--search",
        type=_positive,
        metavar="TRIALS",
        help="choose hyper-parameters on validation data, with so many trials for every method",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder")
    parser.add_argument("--jobs", type=_positive, default=2, help="processes (2)")
    return parser


def _data_parser(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "data", help="list, check and fake data sets", description=_DATA
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=Parser, help="one of"
    )
    listing = actions.add_parser("list", help="list the data sets")
    checking = actions.add_parser("check", help="look for every file of a set and decode it")
    faking = actions.add_parser("fake", help="write a tiny set in the real layout")
    for action in (checking, faking):
        action.add_argument("name", metavar="NAME", help="a data set that lies in files")
    checking.add_argument("--root", metavar="R", help="its folder ($EQUIVOX_DATA/NAME)")
    checking.add_argument(
        "--option",
        dest="data_options",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="an option of the data set; repeat for more",
    )
    for action in (listing, checking):
        action.add_argument("--json", action="store_true", help="print JSON")
    faking.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    faking.add_argument("--seed", type=int, default=0, help="of its content (0)")
    return parser


def _doctor_parser(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "doctor", help="look for faults of the installation", description=_DOCTOR
    )
    return parser


_DEMO = "Trains on bundled data, shows which encoder is neglected and what helps, writes a page."
_METHODS = "The whole catalogue: every paper of the field and the yardsticks, implemented or not."
_TRAIN = "One run: configuration, metrics, checkpoints and result in one folder."
_COMPARE = (
    "Methods x data sets x seeds as folders of runs; called again, it goes on where it was. Writes "
    "the tables, paired by seed, against joint training and the best simple baseline."
)
_DIAGNOSE = (
    "Measures the network, trains each modality alone to compare, and says which one is\n"
    "neglected, what could be gained and what to do."
)
_CONDITIONS = """\
conditions of --fail-on, for example 'imbalance>0.3', with one of < <= > >= == !=:
  imbalance    mean difference of the modalities' contributions, others blanked by zeros
  relative     that over the sum of the contributions
  gap          the largest fall of an encoder's probe below the same encoder trained alone
  neglected    how many modalities are neglected
  gain         what a late fusion of the modalities alone is better by than the network
  single_gain  what the best modality alone is better by
  headroom     the larger of these two
  joint, late_fusion, chance    the metric of the network, of a late fusion, of no input
  faults       how many faults the data have
  and any number of the JSON by its names with dots, such as probes.audio.gap.low
"""
_DATA = "Data sets: which there are, whether the files of one are whole, and tiny fake ones."
_DOCTOR = "Looks for packages that break torch, for GPU faults, malware, and what is missing."


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"it should be 1 or more. Found {text}.")
    return int(text)


def _seconds(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"it should be positive. Found {text}.")
    return float(text)


def _option(text: str) -> tuple[str, Any]:
    from equivox.bench.experiment import assignment

    try:
        return assignment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# ── the commands ────────────────────────────────────────────────────────────────────────────────


def demo(given: argparse.Namespace) -> int:
    """Show an imbalance and its cure."""
    code: int = importlib.import_module("equivox.bench.demo").main(given)
    return code


def methods(given: argparse.Namespace) -> int:
    """List the catalogue."""
    from equivox.catalogue import entries

    found = entries(given.category)
    if given.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    rows = [
        (
            entry["key"],
            entry["name"],
            entry["category"],
            entry["venue"] or "",
            entry["fidelity"] if entry["implemented"] else "-",
        )
        for entry in found
    ]
    show(("key", "name", "category", "venue", "fidelity"), rows)
    return 0


def train(given: argparse.Namespace) -> int:
    """Train, or go on with a training."""
    folder, experiment = _asked(given)
    from equivox.bench.training import Terminated
    from equivox.bench.training import train as run

    if not given.quiet:
        print(experiment, file=sys.stderr)
    watch = None if given.quiet else _print_epoch
    resume = given.resume is not None
    try:
        result = run(experiment, folder, resume=resume, watch=watch, device=given.device)
    except Terminated as ended:
        return _told(ended, TERMINATED)
    except KeyboardInterrupt:
        kept = f"Interrupted. Go on with `equivox train --resume {folder}`."
        return _told(kept, INTERRUPTED)
    _print_result(result, folder)
    return 0


def _asked(given: argparse.Namespace) -> tuple[Path, Experiment]:
    """The folder and the experiment that the options describe."""
    asked = {name: getattr(given, name) for name in FIELDS if hasattr(given, name)}
    for name in ("arguments", "data_options"):
        if hasattr(given, name):
            asked[name] = dict(getattr(given, name))
    if given.resume is not None:
        return given.resume, _resumed(given, asked)
    for name in ("data", "out"):
        if asked.get(name, getattr(given, name, None)) is None:
            raise ValueError(f"A run needs `--{name}`. Found none. See `equivox train --help`.")
    from equivox.bench.experiment import Experiment

    return given.out, Experiment(**asked)


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
        shares = "  ".join(f"{name} {value:.4f}" for name, value in found["branches"].items())
        rows.append((what, str(found["epoch"] + 1), metrics, shares))
    show(("weights", "epoch", "test", "share of each modality alone"), rows)
    print(f"{result.epochs} epochs, {result.seconds:.1f} s of training: {folder}")


def diagnose(given: argparse.Namespace) -> int:
    """Diagnose a run or a model."""
    code: int = importlib.import_module("equivox.diagnosis.command").main(given)
    return code


def compare(given: argparse.Namespace) -> int:
    """Compare methods on data sets."""
    code: int = importlib.import_module("equivox.bench.comparing").main(given)
    return code


def data(given: argparse.Namespace) -> int:
    """List, check or fake data sets."""
    code: int = importlib.import_module("equivox.data.command").main(given)
    return code


def doctor(_: argparse.Namespace) -> int:
    """Look for faults."""
    from equivox import doctor as installation

    found = installation.diagnose(installation.gather())
    show(("state", "found", "cure"), [(f.state, f.what, f.cure) for f in found])
    broken = sum(f.state == "broken" for f in found)
    print(f"{broken} broken." if broken else "Nothing is broken.")
    return FAILED if broken else 0


PARSERS = {
    "demo": _demo_parser,
    "methods": _methods_parser,
    "train": _train_parser,
    "diagnose": _diagnose_parser,
    "compare": _compare_parser,
    "data": _data_parser,
    "doctor": _doctor_parser,
}
COMMANDS = {
    "demo": demo,
    "methods": methods,
    "train": train,
    "diagnose": diagnose,
    "compare": compare,
    "data": data,
    "doctor": doctor,
}


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def show(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: by rich in a terminal, in plain columns elsewhere."""
    if sys.stdout.isatty():
        try:
            return _show_rich(heads, rows)
        except ImportError:
            pass  # the extra `bench` is not installed
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    return None


def _show_rich(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # brackets in a cell are not markup
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
