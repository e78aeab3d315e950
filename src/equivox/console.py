"""What commands share: exit codes, messages, and tables in a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

FAILED, REFUSED, TERMINATED, INTERRUPTED = 1, 2, 75, 130


def told(message: object, code: int) -> int:
    """Print a message where errors go; returns the exit code."""
    print(f"equivox: {message}", file=sys.stderr)
    return code


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
