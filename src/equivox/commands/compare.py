"""`equivox compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from equivox.commands.options import Parser, option, positive, seconds

ABOUT = (
    "Methods x data sets x seeds as folders of runs; called again, it goes on where it was. Writes "
    "the tables, paired by seed, against joint training and the best simple baseline."
)


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "compare", help="compare methods on data sets over seeds", description=ABOUT
    )
    parser.add_argument(
        "--data", required=True, help="data sets with commas, NAME or NAME:OPTION=VALUE:…"
    )
    parser.add_argument(
        "--methods",
        default="all",
        help="methods with commas, all or NAME or NAME:ARGUMENT=VALUE:… (all)",
    )
    parser.add_argument("--seeds", type=positive, default=5, help="runs of each method (5)")
    parser.add_argument("--epochs", type=positive, help="epochs (the data set's recipe)")
    parser.add_argument(
        "--search",
        type=positive,
        metavar="TRIALS",
        help="choose hyper-parameters on validation data, with so many trials for every method: "
        "2 or more, for the first has the defaults",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder")
    parser.add_argument("--jobs", type=positive, default=2, help="runs at a time (2)")
    parser.add_argument(
        "--patience",
        type=positive,
        metavar="EPOCHS",
        help="end a run after so many epochs without a better one on validation data",
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="then measure FLOPs, memory and time of a batch, once for all seeds",
    )
    parser.add_argument(
        "--budget",
        type=seconds,
        metavar="TIME",
        help="begin no run that should not end within it, for example 3h; the exit code is 75 where"
        " runs are left",
    )
    parser.add_argument(
        "--executor",
        choices=("local", "submitit"),
        default="local",
        help="processes on this machine, or a cluster's scheduler (local)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        type=option,
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the scheduler, such as partition, time or mem; repeat for more",
    )
    return parser


def run(given: argparse.Namespace) -> int:
    """Compare methods on data sets."""
    from equivox.bench.comparison import main

    return main(given)
