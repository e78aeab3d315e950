"""`equivox runs`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from equivox.commands.options import Parser

ABOUT = (
    "SQL (DuckDB's) over the runs of a comparison: the tables `runs`, `failures`, `trials` and "
    "`epochs`. Without a query, their columns and an example."
)


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "runs", help="ask the runs of a comparison by SQL", description=ABOUT
    )
    parser.add_argument("query", nargs="?", metavar="QUERY", help="a SELECT")
    parser.add_argument(
        "--in",
        dest="folder",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="the comparison's folder (the present one)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print a list of objects, NaN as null")
    return parser


def run(given: argparse.Namespace) -> int:
    """Query the runs of a comparison."""
    from equivox.bench.query import main

    return main(given)
