"""`equivox demo`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from equivox.commands.options import Parser, positive, seconds

ABOUT = "Trains on bundled data, shows which encoder is neglected and what helps, writes a page."


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "demo", help="show an imbalance and its cure in two minutes", description=ABOUT
    )
    parser.add_argument("--seeds", type=positive, default=3, help="runs of each method (3)")
    parser.add_argument(
        "--budget",
        type=seconds,
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


def run(given: argparse.Namespace) -> int:
    """Show an imbalance and its cure."""
    from equivox.demo.command import main

    return main(given)
