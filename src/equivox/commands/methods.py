"""`equivox methods`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from equivox.commands.options import Parser
from equivox.console import show

ABOUT = "The whole catalogue: every paper of the field and the yardsticks, implemented or not."


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "methods", help="list the methods of the field", description=ABOUT
    )
    parser.add_argument(
        "--category", metavar="C", help="one category alone, for example optimization"
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    return parser


def run(given: argparse.Namespace) -> int:
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
