"""`equivox data`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from equivox.commands.options import Parser, option

ABOUT = "Data sets: which there are, whether the files of one are whole, and tiny fake ones."


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "data", help="list, check and fake data sets", description=ABOUT
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=Parser, help="one of"
    )
    listing = actions.add_parser("list", help="list the data sets")
    checking = actions.add_parser("check", help="look for every file of a set and decode it")
    faking = actions.add_parser("fake", help="write a tiny set in the real layout")
    for action in (checking, faking):
        action.add_argument("name", metavar="NAME", help="a data set that lies in files")
        action.add_argument(
            "--option",
            dest="data_options",
            action="append",
            type=option,
            default=[],
            metavar="NAME=VALUE",
            help="an option of the data set; repeat for more",
        )
    checking.add_argument("--root", metavar="R", help="its folder ($EQUIVOX_DATA/NAME)")
    for action in (listing, checking):
        action.add_argument("--json", action="store_true", help="print JSON")
    faking.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    faking.add_argument("--seed", type=int, default=0, help="of its content (0)")
    return parser


def run(given: argparse.Namespace) -> int:
    """List, check or fake data sets."""
    from equivox.data.command import main

    return main(given)
