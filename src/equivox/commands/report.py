"""`equivox report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from equivox.commands.options import Parser

ABOUT = (
    "A static site of a comparison: the leaderboard, a page a method and a page a data set. Its "
    "files need no network and no server."
)


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "report", help="write the site of a comparison", description=ABOUT
    )
    parser.add_argument("comparison", type=Path, metavar="DIR", help="the comparison's folder")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="SITE",
        help="the site's folder, a new one or an older site's (DIR/site)",
    )
    return parser


def run(given: argparse.Namespace) -> int:
    """Write the site of a comparison."""
    from equivox.report.site.building import build

    print(build(given.comparison, given.out or given.comparison / "site"))
    return 0
