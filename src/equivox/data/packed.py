"""Frames of a clip as encoded pictures in one hdf5 file, by h5py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equivox.data.field import Damaged

DATASET = "video"


def count(path: Path) -> int:
    """How many frames a file holds; none where there is no file."""
    if not path.is_file():
        return 0
    with _opened(path) as pictures:
        return len(pictures)


def read(path: Path) -> list[bytes]:
    """The pictures of a file, in order.

    :raises Damaged: Where it is no whole hdf5 file, or has no pictures in its dataset `video`.
    :raises ImportError: Where h5py is missing.
    """
    with _opened(path) as pictures:
        found = [bytes(picture) for picture in pictures]
    if not found:
        raise Damaged(f"`{path}` should hold frames. Found none.")
    return found


def write(path: Path, pictures: Sequence[bytes]) -> None:
    """A file as such sets have them."""
    import h5py
    import numpy

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        kind = h5py.vlen_dtype(numpy.uint8)
        dataset = file.create_dataset(DATASET, (len(pictures),), kind)
        for i, picture in enumerate(pictures):
            dataset[i] = numpy.frombuffer(picture, numpy.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "Frames in hdf5 files are read with h5py. Found none. Run `pip install equivox[hdf5]`."
        ) from error
    try:
        with h5py.File(path, "r") as file:
            yield file[DATASET]
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(
            f"`{path}` should be a whole hdf5 file with a dataset `{DATASET}` of encoded pictures. "
            f"Found: {error}. Copy the file again."
        ) from error
