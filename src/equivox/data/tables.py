"""Lists in text files: splits, labels and class names, as they are found in the wild.

All are read as UTF-8 with or without a byte-order mark; other bytes are an error, not a guess.
Lines end where files end them, not at the further signs that `str.splitlines` takes for ends.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from equivox.errors import nearest

SEPARATORS = ",;\t&|"


def read_text(path: Path) -> str:
    """A text file, without its byte-order mark.

    :raises FileNotFoundError: Where it is missing, with what lies beside it.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"`{path}` should be text in UTF-8. Found a byte that is not: {error}. Convert it."
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"`{path}` should be a list. Found {beside(path)}.") from error


def beside(path: Path, most: int = 8) -> str:
    """What lies in the folder of a missing file, in words."""
    folder = path.parent
    if not folder.is_dir():
        return f"no folder `{folder}`"
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return f"an empty folder `{folder}`"
    more = ", …" if len(names) > most else ""
    return f"only {', '.join(f'`{name}`' for name in names[:most])}{more} in `{folder}`"


def single(root: Path, pattern: str, way_out: str) -> Path:
    """The one list whose name fits.

    :param way_out: What to do where there are several, which is a ValueError.
    :raises FileNotFoundError: Where there is none, with what lies beside it.
    """
    found = sorted(root.glob(pattern))
    if not found:
        raise FileNotFoundError(
            f"`{root / pattern}` should be a list. Found {beside(root / pattern)}."
        )
    if len(found) > 1:
        raise ValueError(
            f"`{root}` should hold one list `{pattern}`. Found "
            f"{', '.join(path.name for path in found)}. {way_out}"
        )
    return found[0]


def rows(path: Path, fields: int | None = None, separator: str | None = None) -> list[list[str]]:
    """The rows of a table without a header, without empty ones, each field stripped.

    :param fields: How many a row should have.
    :param separator: By default that of `,;⇥&|` which all lines have equally often, or a comma.
    :raises ValueError: For a row of another length or a single quotation mark at the start of a
        field, with the line, and for an empty table.
    """
    text = read_text(path)
    chosen = separator or _separator(text)
    found: list[list[str]] = []
    for line, cells in _cells(path, text, chosen):
        if fields is not None and len(cells) != fields:
            raise ValueError(
                f"Rows of `{path}` should have {fields} fields. Found {len(cells)} in line {line}, "
                f"taken apart at `{chosen}`: {cells[:6]}."
            )
        found.append(cells)
    if not found:
        raise ValueError(f"`{path}` should have rows. Found none.")
    return found


def _cells(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its last line."""
    reader = csv.reader(StringIO(text), delimiter=separator, strict=True)
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:  # a single mark would swallow all rows up to the next one
        raise ValueError(
            f"Quotation marks of `{path}` should enclose whole fields, those within doubled. "
            f"Found in the row that ends in line {reader.line_num}: {error}. Correct it."
        ) from error
    finally:
        csv.field_size_limit(limit)


def records(
    path: Path, columns: Sequence[str], separator: str | None = None
) -> list[dict[str, str]]:
    """The rows of a table with a header, by column; columns in any order, further ones are kept.

    :raises ValueError: Where a column is missing, with the nearest that is there.
    """
    header, *body = rows(path, separator=separator)
    for column in columns:
        if column not in header:
            raise ValueError(
                f"`{path}` should have the columns {', '.join(columns)}. Found no `{column}` in "
                f"{header}. {nearest(column, header)}"
            )
    if not body:
        raise ValueError(f"`{path}` should have rows below its header. Found none.")
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"Rows of `{path}` should have {len(header)} fields. Found {len(row)} in row "
                f"{number}: {row[:6]}."
            )
    return [dict(zip(header, row, strict=True)) for row in body]


def lines(path: Path) -> list[str]:
    """The lines of a list, stripped, without empty ones; ValueError where there are none."""
    found = [line.strip() for line in read_text(path).split("\n")]
    if not any(found):
        raise ValueError(f"`{path}` should have lines. Found none.")
    return [line for line in found if line]


def read_json(path: Path) -> Any:
    """What a JSON file holds; ValueError where it is none or a key occurs twice in it."""
    try:
        return json.loads(read_text(path), object_pairs_hook=_once)
    except ValueError as error:
        raise ValueError(f"`{path}` should be JSON. Found: {error}.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of pairs, of which Python's reader would silently keep the last of a key."""
    if twice := counted(key for key, _ in pairs):
        raise ValueError(f"keys that occur more than once, such as `{next(iter(twice))}`")
    return dict(pairs)


def json_lines(path: Path) -> list[Any]:
    """What the lines of a `.jsonl` file hold; ValueError for a line that is no JSON."""
    found = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        try:
            found += [json.loads(line, object_pairs_hook=_once)] if line.strip() else []
        except ValueError as error:
            raise ValueError(
                f"Lines of `{path}` should be JSON. Found: {error} in line {number}."
            ) from error
    return found


def class_number(name: str, classes: Sequence[str], where: object) -> int:
    """The number of a class; ValueError for an unknown one, which says where it stands."""
    if name not in classes:
        raise ValueError(
            f"Classes should be known ones. Found `{name}` in {where}. {nearest(name, classes)}"
        )
    return classes.index(name)


def _separator(text: str) -> str:
    """The sign that the first lines have equally often, and most."""
    first = [line for line in text.split("\n") if line.strip()][:20]
    counts = {sign: {line.count(sign) for line in first} for sign in SEPARATORS}
    alike = {sign: found.pop() for sign, found in counts.items() if len(found) == 1}
    best = max(alike, key=lambda sign: alike[sign], default=",")
    return best if alike.get(best) else ","


def written(path: Path, table: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> None:
    """Write rows as comma-separated values, which is what fake sets do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([header] if header else [])
        writer.writerows(table)


def counted(names: Iterable[str]) -> Mapping[str, int]:
    """How often each name occurs, those alone that occur more than once."""
    return {name: times for name, times in Counter(names).items() if times > 1}
