"""The command line: `equivox demo`, `methods`, `train`, `diagnose`, `compare`, `report`, `runs`,
`data` and `doctor`.

Exit codes: 0, it went well; 1, it failed; 2, what was asked for cannot be; 3, a condition of
`diagnose --fail-on` holds; 75, the run was asked to end and left a checkpoint, or the budget of a
comparison leaves runs; 130, it was interrupted from the keyboard.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from equivox.commands import compare, data, demo, diagnose, doctor, methods, report, runs, train
from equivox.commands.options import Parser
from equivox.console import FAILED, INTERRUPTED, REFUSED, told

COMMANDS = {
    "demo": demo,
    "methods": methods,
    "train": train,
    "diagnose": diagnose,
    "compare": compare,
    "report": report,
    "runs": runs,
    "data": data,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = _parsed(words)
        code = COMMANDS[given.command].run(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return told("Interrupted. What was finished is kept.", INTERRUPTED)
    except ImportError as error:
        if "equivox[" not in str(error):
            error.msg = f'{error}. `pip install "equivox[bench]"` brings what is missing.'
        return told(error, FAILED)
    except (ValueError, TypeError) as error:
        return told(error, REFUSED)
    except (OSError, FloatingPointError) as error:
        return told(error, FAILED)


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
    return parser, {name: command.add(commands) for name, command in COMMANDS.items()}


if __name__ == "__main__":
    sys.exit(main())
