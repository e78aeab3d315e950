"""`equivox runs`: SQL over the folders of a comparison, by DuckDB.

Tables: `runs`, a row a finished run; `failures`, what diverged or was refused; `trials`, of the
search; `epochs`, a row an epoch of a run, also of one that is not finished. What is nested becomes
columns: the accuracy on the test data is `test_accuracy`. Queries read a copy in memory; they can
change nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from equivox.bench.files import shaped
from equivox.console import show
from equivox.errors import nearest

if TYPE_CHECKING:
    import duckdb

FILES = {
    "runs": "runs/*/*/*/record.json",
    "failures": "runs/*/*/*/failed.json",
    "trials": "search/*/*/*/record.json",
    "epochs": "runs/*/*/*/metrics.jsonl",
}
"""The tables and the files that they are read from."""
EMPTY = "folder VARCHAR, data VARCHAR, method VARCHAR, seed BIGINT, error VARCHAR"
"""The columns of a table without a file."""

EXAMPLE = (
    "SELECT method, count(*) AS seeds, avg(test_accuracy) AS accuracy FROM runs "
    "GROUP BY method ORDER BY accuracy DESC"
)


@dataclass(frozen=True)
class Answer:
    """What a query found: the names of its columns, and its rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def main(given: argparse.Namespace) -> int:
    """Answer a query, or list the columns where there is none."""
    if given.query is None:
        found = columns(given.folder)
        show(("table", "column", "type"), [*found.rows])
        print(f"\nFor example:\n\n  equivox runs '{EXAMPLE}' --in {given.folder}")
        return 0
    found = query(given.folder, given.query)
    if given.json:
        print(_json(found))
    elif given.csv:
        print(_csv(found), end="")
    else:
        show(found.columns, [[_cell(value) for value in row] for row in found.rows])
    return 0


def query(folder: Path, text: str) -> Answer:
    """Answer a SELECT over the runs of a comparison's folder.

    :raises FileNotFoundError: Where the folder holds no run.
    :raises ValueError: Where the query is none that DuckDB understands, with its message, which
        names what is near, and where a record is damaged.
    """
    import duckdb

    try:
        with connection(folder, text) as database:
            found = database.sql(_only_select(database, text))
            return Answer(found.columns, found.fetchall())
    except duckdb.Error as error:
        raise ValueError(
            f"The query should be one that DuckDB can answer. Found: {_told(str(error))}\n"
            f"`equivox runs --in {folder}` lists the columns."
        ) from error


def _told(error: str) -> str:
    """What DuckDB says; where it would name a near table of its own, with one of these."""
    missing = r"(Table with name (.+) does not exist!)(\nDid you mean .*)?"
    return re.sub(missing, lambda found: f"{found[1]}\n{nearest(found[2], FILES)}", error)


def columns(folder: Path) -> Answer:
    """The columns of all tables, with their types."""
    with connection(folder, " ".join(FILES)) as database:
        text = "SELECT table_name, column_name, data_type FROM information_schema.columns"
        rows = database.sql(f"{text} ORDER BY table_name, ordinal_position").fetchall()
        return Answer(("table", "column", "type"), rows)


@contextmanager
def connection(folder: Path, text: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with the tables that a query names; nothing else can be reached."""
    import duckdb

    if not any(any(folder.glob(each)) for each in FILES.values()):
        raise FileNotFoundError(
            f"A comparison's folder should hold runs. Found none in `{folder}`. Name "
            "another by `--in`."
        )
    with duckdb.connect() as database, TemporaryDirectory() as scratch:
        for name in FILES:
            if re.search(rf"\b{name}\b", text, re.IGNORECASE):
                _fill(database, name, folder, Path(scratch))
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
        yield database


def _fill(database: duckdb.DuckDBPyConnection, name: str, folder: Path, scratch: Path) -> None:
    """Make a table of files, which go through one: DuckDB would hold 32 MiB for each of many."""
    whole = scratch / f"{name}.jsonl"
    with whole.open("wb") as file:
        for path in sorted(folder.glob(FILES[name])):
            file.writelines(_lines(path, str(path.parent.relative_to(folder))))
    if not whole.stat().st_size:
        database.execute(f"CREATE TABLE {name} ({EMPTY})")
        return
    read = f"read_json_auto('{whole}', sample_size = -1, map_inference_threshold = -1)"
    flat = ", ".join(_flat(database.sql(f"FROM {read}")))
    database.execute(f"CREATE TABLE {name} AS SELECT {flat} FROM {read}")


def _lines(path: Path, folder: str) -> Iterator[bytes]:
    """What a file tells, one object a line, with the folder of its run."""
    where = json.dumps({"folder": folder})[:-1].encode()
    content = path.read_bytes()
    parts = [content]
    if path.suffix == ".jsonl":  # the last line of a run in progress may be half there
        parts = content.splitlines()[: None if content.endswith(b"\n") else -1]
    for part in parts:
        yield where + b", " + _object(path, part)[1:] + b"\n"


def _object(path: Path, content: bytes) -> bytes:
    try:
        return json.dumps(shaped(json.loads(content), {}), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"`{path}` should hold a record. Found: {error}. Delete it: its run is measured again "
            "from its checkpoint."
        ) from error


def _flat(read: Any) -> Iterator[str]:
    """The columns of a relation in SQL, structures taken apart; those without a value left out."""
    for name, kind in zip(read.columns, read.types, strict=True):
        yield from _parts(kind, f'"{name}"', name)


def _parts(kind: Any, value: str, name: str) -> Iterator[str]:
    if kind.id == "struct":
        for part, inner in kind.children:
            yield from _parts(inner, f'{value}."{part}"', f"{name}_{part}")
    elif kind.id != "null":
        yield f'{value} AS "{name}"'


def _only_select(database: duckdb.DuckDBPyConnection, text: str) -> str:
    found = [statement.type.name for statement in database.extract_statements(text)]
    if found != ["SELECT"]:
        raise ValueError(
            f"A query should be one SELECT. Found {' and '.join(found) or 'nothing'}. Runs are "
            "changed by `equivox compare` alone."
        )
    return text


# ── as text ─────────────────────────────────────────────────────────────────────────────────────


def _csv(found: Answer) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(found.rows)
    return stream.getvalue()


def _json(found: Answer) -> str:
    rows = [dict(zip(found.columns, map(_plain, row), strict=True)) for row in found.rows]
    return json.dumps(rows, indent=1, ensure_ascii=False, default=str, allow_nan=False)


def _plain(value: Any) -> Any:
    """A value with null in the place of numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
