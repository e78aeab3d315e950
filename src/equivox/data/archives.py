"""The arrays of one npz file: plain, equally long, and with values that a set may have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]


def read_arrays(
    path: Path, wanted: Sequence[str], optional: Sequence[str], lists: tuple[str, ...]
) -> dict[str, Array]:
    """The wanted arrays of a file, and the optional ones that it has, with a sample a row.

    :param lists: Endings of the names of those that hold no samples, but classes or words.
    :raises ValueError: Where the file is damaged, an array is missing, holds objects, words or
        numbers that are not finite, or is longer than another.
    """
    try:
        import numpy
    except ImportError as error:
        raise ImportError(
            "Files are read with NumPy. Found none. Run `pip install equivox[bench]`."
        ) from error
    try:
        with path.open("rb") as raw, numpy.load(raw, allow_pickle=False) as file:
            missing = [array for array in wanted if array not in file.files]
            there = [array for array in (*wanted, *optional) if array in file.files]
            arrays = {array: file[array] for array in there}
            for array in there:
                if array.endswith(lists):
                    arrays[array].tolist()  # numpy looks at letters no earlier
    except Exception as error:  # a damaged archive raises whatever its bytes happen to ask for
        raise ValueError(
            f"`{path}` should be a whole npz file of plain arrays. Found: {error}. "
            "Copy the file again."
        ) from error
    if missing:
        raise ValueError(f"`{path}` should hold the arrays {list(wanted)}. Found no {missing}.")
    rows = {array: x for array, x in arrays.items() if not array.endswith(lists)}
    for array, x in arrays.items():
        _check(path, array, x, "biuf" if array in rows else "biufSU")
    if len({len(x) for x in rows.values()}) > 1:
        lengths = {array: len(x) for array, x in rows.items()}
        raise ValueError(f"The arrays of `{path}` should be equally long. Found {lengths}.")
    return arrays


def _check(path: Path, name: str, array: Array, kinds: str) -> None:
    import numpy

    plain = isinstance(array, numpy.ndarray)  # of a file that is no array numpy gives the bytes
    if not (plain and array.dtype.kind in kinds and array.ndim and array.size):
        found = f"{array.shape} of {array.dtype}" if plain else "no array"
        what = "numbers" if kinds == "biuf" else "words or numbers"
        raise ValueError(f"`{name}` of `{path}` should hold {what} in rows. Found {found}.")
    if array.dtype.kind in "SU":
        return
    with numpy.errstate(over="ignore"):  # what is beyond float32 becomes infinite there
        finite = numpy.isfinite(array.reshape(len(array), -1).astype("float32")).all(1)
    if not finite.all():
        bad = numpy.flatnonzero(~finite)
        raise ValueError(
            f"The values of `{name}` should be finite. Found others in {len(bad)} samples of "
            f"`{path}`: {bad[:5].tolist()}."
        )


def check_numbered(path: Path, name: str, array: Array, count: int) -> None:
    """Refuse what is not one of 0 … `count` - 1 for every sample, such as the number of a class."""
    import numpy

    bad = array[~numpy.isin(array, numpy.arange(count))]
    if array.ndim != 1 or bad.size:
        found = bad[0] if array.ndim == 1 else f"an array of {array.shape}"
        raise ValueError(f"`{name}` of `{path}` should be one of 0 … {count - 1}. Found {found}.")
