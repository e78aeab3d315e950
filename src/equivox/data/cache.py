"""Decoded files kept in a memory-mapped file, so that they are decoded once.

A cache is a folder `<cache>/<set>-<preprocessing id>-<files>` with, for each modality, the numbers
of all files behind one another (`<modality>.bin`) and where each lies in them (`index.json`). It is
made beside its place and renamed when it is whole: a killed build leaves a folder `….partial-…`,
which the next build removes. It holds what decoders `load`, before anything is drawn, so that
samples with and without it are equal bit for bit.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.data.field import Contents, Damaged, Decoder, Load

if TYPE_CHECKING:
    from typing import BinaryIO

INDEX = "index.json"
SHOWN = 20


@dataclass
class Stored:
    """The decoded files of one modality, read from a cache: called with a path like a decoder.

    The file is mapped when it is first read, in each process for itself.
    """

    path: Path
    dtype: torch.dtype
    root: Path
    places: Mapping[str, tuple[int, list[int]]]

    def __call__(self, part: Path) -> Tensor:
        """The decoded file; ValueError for one that is not in the cache."""
        found = self.places.get(_key(part, self.root))
        if found is None:
            raise ValueError(
                f"A cache should hold every file of the set. Found no `{part}` in "
                f"`{self.path.parent}`. Delete that folder."
            )
        start, shape = found
        count = 1
        for length in shape:
            count *= length
        return self._mapped()[start : start + count].view(shape).clone()

    def _mapped(self) -> Tensor:
        if not hasattr(self, "_numbers"):
            size = self.path.stat().st_size // self.dtype.itemsize
            self._numbers = torch.from_file(str(self.path), False, size, dtype=self.dtype)
        return self._numbers

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_numbers"}


def cached(
    folder: Path, name: str, preprocessing: str, contents: Contents, root: Path
) -> tuple[Mapping[str, Load], Path]:
    """What reads the files of every modality from a cache, which is built where there is none.

    :param folder: Of all caches.
    :param preprocessing: The preprocessing id: another one is another cache.
    :returns: The loads of the modalities that have files, and the folder of this cache.
    :raises Damaged: Where files cannot be decoded: the first of them are named, and their number.
    :raises OSError: Where the disk is full or cannot be written to; nothing is left behind.
    :raises ValueError: Where the folder holds something else, or a damaged cache.
    """
    files = {m: _files(decoder, contents, m) for m, decoder in contents.decoders.items()}
    files = {modality: found for modality, found in files.items() if found}
    facts = {"set": name, "preprocessing": preprocessing, "files": _digest(files, root)}
    place = folder.expanduser() / f"{name}-{preprocessing}-{facts['files']}"
    if not (place / INDEX).is_file():
        _build(place, facts, files, contents.decoders, root)
    return _opened(place, facts, list(files), root), place


def _files(decoder: Decoder, contents: Contents, modality: str) -> list[Path]:
    """The files of a modality, each once, in order."""
    every = (
        part
        for entries in contents.entries.values()
        for entry in entries
        for part in decoder.parts(entry.sources[modality])
    )
    return list(dict.fromkeys(every))


def _key(part: Path, root: Path) -> str:
    return part.relative_to(root).as_posix() if part.is_relative_to(root) else str(part)


def _digest(files: Mapping[str, list[Path]], root: Path) -> str:
    """Stands for the names, sizes and times of the files: one that was replaced is decoded again.

    A copy of the set that does not keep the times is another set.
    """
    digest = hashlib.blake2b(digest_size=4)
    for modality, parts in files.items():
        for part in parts:
            found = part.stat()
            line = f"{modality} {_key(part, root)} {found.st_size} {found.st_mtime_ns}\n"
            digest.update(line.encode())
    return digest.hexdigest()


# ── building ────────────────────────────────────────────────────────────────────────────────────


def _build(
    place: Path,
    facts: Mapping[str, str],
    files: Mapping[str, list[Path]],
    decoders: Mapping[str, Decoder],
    root: Path,
) -> None:
    partial = place.with_name(f"{place.name}.partial-{socket.gethostname()}-{os.getpid()}")
    try:
        _remove_killed(place)
        # In a container a killed process may have had the number that this one has.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        bad: list[str] = []
        index = {
            m: _written(partial, m, decoders[m], parts, root, bad) for m, parts in files.items()
        }
        _refuse_damaged(bad)
        with (partial / INDEX).open("w", encoding="utf-8") as file:
            json.dump({**facts, "modalities": index}, file)
            _synced(file.fileno())
        _renamed(partial, place)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"A cache of decoded files should fit on the disk of `{place.parent}`. Found no space "
            "left. The unfinished cache was removed. Free some space, choose another folder, or "
            "leave `cache` out",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_damaged(bad: Sequence[str]) -> None:
    if bad:
        more = f"\n… and {len(bad) - SHOWN} more." if len(bad) > SHOWN else ""
        raise Damaged(
            f"{bad[0]}"
            if len(bad) == 1
            else f"All files of a cache should be whole. Found "
            f"{len(bad)} damaged:\n" + "\n".join(bad[:SHOWN]) + more
        )


def _written(
    partial: Path,
    modality: str,
    decoder: Decoder,
    parts: list[Path],
    root: Path,
    bad: list[str],
) -> dict[str, Any]:
    """Write the numbers of all files; returns their type and places.

    :param bad: What is wrong with files that cannot be decoded is put here.
    """
    places: dict[str, tuple[int, list[int]]] = {}
    end, kind = 0, None
    with (partial / f"{modality}.bin").open("wb") as file:
        for part in parts:
            try:
                x = decoder.load(part).contiguous()
            except ValueError as error:
                bad.append(str(error))
                continue
            kind = kind or x.dtype
            if x.dtype != kind:
                raise TypeError(f"A decoder should give one type. Found {kind} and {x.dtype}.")
            places[_key(part, root)] = (end, list(x.shape))
            _write(file, x)
            end += x.numel()
        _synced(file.fileno())
    return {"dtype": str(kind).removeprefix("torch."), "numbers": end, "places": places}


def _write(file: BinaryIO, x: Tensor) -> None:
    file.write(x.numpy().tobytes())


def _synced(file: int) -> None:
    os.fsync(file)


def _renamed(partial: Path, place: Path) -> None:
    """Put a whole cache in its place; where another process was faster, its cache stays."""
    try:
        partial.rename(place)
    except OSError:
        if not (place / INDEX).is_file():
            raise


def _remove_killed(place: Path) -> None:
    """Remove the unfinished caches of processes of this machine that are no more."""
    for partial in place.parent.glob(f"{place.name}.partial-{socket.gethostname()}-*"):
        number = partial.name.rpartition("-")[2]
        if number.isdigit() and not _alive(int(number)):
            shutil.rmtree(partial, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# ── opening ─────────────────────────────────────────────────────────────────────────────────────


def _opened(
    place: Path, facts: Mapping[str, str], modalities: Sequence[str], root: Path
) -> Mapping[str, Load]:
    try:
        index = json.loads((place / INDEX).read_bytes())
        known = {what: index[what] for what in facts}
        stored = {m: _stored(place, m, index["modalities"][m], root) for m in modalities}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"`{place}` should hold a whole cache. Found: {error}. Delete that folder: it is built "
            "again."
        ) from error
    for what, wanted in facts.items():
        if known[what] != wanted:
            raise ValueError(
                f"The cache `{place}` should be of {what} `{wanted}`. Found one of "
                f"`{known[what]}`. Delete that folder: it is built again."
            )
    return stored


def _stored(place: Path, modality: str, found: Mapping[str, Any], root: Path) -> Stored:
    path, dtype = place / f"{modality}.bin", getattr(torch, found["dtype"])
    size = path.stat().st_size if path.is_file() else 0
    if size != found["numbers"] * dtype.itemsize:
        raise ValueError(
            f"`{path.name}` has {size} bytes where {found['numbers'] * dtype.itemsize} were written"
        )
    places = {
        key: _place(start, shape, found["numbers"])
        for key, (start, shape) in found["places"].items()
    }
    return Stored(path, dtype, root, places)


def _place(start: int, shape: list[int], numbers: int) -> tuple[int, list[int]]:
    whole = all(type(number) is int for number in (start, *shape))
    if not whole or min(start, *shape) < 0 or start + math.prod(shape) > numbers:
        raise ValueError(f"a file of {shape} at {start} of {numbers} numbers")
    return start, shape
