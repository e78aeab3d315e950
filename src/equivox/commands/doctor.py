"""`equivox doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from equivox.commands.options import Parser
from equivox.console import FAILED, show

ABOUT = "Looks for packages that break torch, for GPU faults, malware, and what is missing."


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "doctor", help="look for faults of the installation", description=ABOUT
    )
    return parser


def run(_: argparse.Namespace) -> int:
    """Look for faults."""
    from equivox.doctor import diagnose, gather

    found = diagnose(gather())
    show(("state", "found", "cure"), [(f.state, f.what, f.cure) for f in found])
    broken = sum(f.state == "broken" for f in found)
    print(f"{broken} broken." if broken else "Nothing is broken.")
    return FAILED if broken else 0
