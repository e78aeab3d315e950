"""Checkpoints: a folder of one safetensors file and JSON, complete or not there at all.

A checkpoint is written beside the one that it replaces, synced to the disk and renamed, so that a
process that is killed at any moment leaves a whole one. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.bench.files import make_folder, shaped, sync

TENSORS, FACTS, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
FORMAT = 1


def save(folder: Path, state: Any, finite: Mapping[str, Tensor] | None = None) -> None:
    """Write a nested state of tensors and plain values, in place of an older checkpoint.

    Arguments:
        folder: of the checkpoint; what was there stays until the new one is complete.
        state: dictionaries, lists, tuples, tensors, numbers, strings and None, nested at will.
            A tensor that occurs twice (tied weights) is stored once.
        finite: tensors that must not hold NaN or infinity.

    Raises FloatingPointError where one does: the older checkpoint is kept.
    """
    _check_finite(finite or {})
    _recover(folder)
    new, old = _beside(folder)
    shutil.rmtree(new, ignore_errors=True)
    make_folder(folder.parent)
    new.mkdir()
    _write(new, state)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> Any:
    """The state that `save` wrote; tensors on the CPU.

    Raises FileNotFoundError where there is none, ValueError where it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_of

    _recover(folder)
    if not folder.exists():
        raise FileNotFoundError(f"A checkpoint should lie at `{folder}`. Found none.")
    files = _verified(folder)
    try:
        return unpacked(json.loads(files[FACTS]), tensors_of(files[TENSORS]))
    except (ValueError, RecursionError, SafetensorError) as error:
        raise _damaged(folder, f"what was never written so ({error})") from error


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, also one whose renaming was interrupted."""
    _recover(folder)
    return folder.exists()


# ── a state in plain values and tensors ─────────────────────────────────────────────────────────


def packed(state: Any, tensors: dict[str, Tensor], seen: dict[Any, str] | None = None) -> Any:
    """The state in JSON values; its tensors are added to `tensors`, each once.

    >>> tensors = {}
    >>> packed({"lr": 0.1, 3: torch.ones(2)}, tensors)
    {'dict': [['lr', 0.1], [3, {'tensor': '0'}]]}
    >>> unpacked(_, tensors)
    {'lr': 0.1, 3: tensor([1., 1.])}
    """
    seen = {} if seen is None else seen
    if isinstance(state, Tensor):
        return {"tensor": _named(state, tensors, seen)}
    if isinstance(state, Mapping):
        return {"dict": [[_key(k), packed(v, tensors, seen)] for k, v in state.items()]}
    if isinstance(state, list | tuple):
        kind = "tuple" if isinstance(state, tuple) else "list"
        return {kind: [packed(part, tensors, seen) for part in state]}
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(
        "A checkpoint holds tensors and plain values. Found "
        f"`{type(state).__name__}`. Keep such state in a buffer."
    )


def unpacked(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `packed` took apart; ValueError for what it never makes."""
    match plain:
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"dict": list(pairs)} if all(map(_is_pair, pairs)):
            return {key: unpacked(part, tensors) for key, part in pairs}
        case {"list": list(parts)}:
            return [unpacked(part, tensors) for part in parts]
        case {"tuple": list(parts)}:
            return tuple(unpacked(part, tensors) for part in parts)
        case dict() | list():
            raise ValueError(f"`{plain!r:.60}`")
    return plain


def _is_pair(part: Any) -> bool:
    return isinstance(part, list) and len(part) == 2 and isinstance(part[0], str | int)


def _key(key: Any) -> Any:
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise TypeError(f"Keys of a checkpoint are words or whole numbers. Found `{key!r}`.")
    return key


def _named(tensor: Tensor, tensors: dict[str, Tensor], seen: dict[Any, str]) -> str:
    """The name under which a tensor is stored: that of an equal view of the same memory."""
    place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
    if tensor.numel() and place in seen:
        return seen[place]
    name = seen[place] = str(len(tensors))
    # Views of one memory would be refused, and the whole of it written.
    tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return name


# ── files ───────────────────────────────────────────────────────────────────────────────────────


def _write(folder: Path, state: Any) -> None:
    from safetensors.torch import save as bytes_of

    tensors: dict[str, Tensor] = {}
    facts = json.dumps(packed(state, tensors)).encode()
    files = {TENSORS: bytes_of(tensors), FACTS: facts}
    listed = {name: {"bytes": len(x), "sha256": _hash(x)} for name, x in files.items()}
    manifest = json.dumps({"format": FORMAT, "files": listed}, indent=1).encode()
    for name, content in {**files, MANIFEST: manifest}.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync(folder)


def _verified(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint, after a look at their lengths and hashes."""
    try:
        files = {name: (folder / name).read_bytes() for name in (TENSORS, FACTS)}
        listed = {name: {"bytes": int, "sha256": str} for name in files}
        manifest = json.loads((folder / MANIFEST).read_bytes())
        shaped(manifest, {"format": int, "files": listed})
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"a file that is missing or cannot be read ({error})") from error
    if (version := manifest["format"]) != FORMAT:
        raise ValueError(
            f"A checkpoint's format should be {FORMAT}. Found {version} in `{folder}`. Read it "
            "with the version of equivox that wrote it."
        )
    for name, content in files.items():
        length, digest = (manifest["files"][name][fact] for fact in ("bytes", "sha256"))
        if len(content) != length:
            raise _damaged(folder, f"{len(content)} of {length} bytes in `{name}`")
        if _hash(content) != digest:
            raise _damaged(folder, f"changed bytes in `{name}`")
    return files


def _damaged(folder: Path, what: str) -> ValueError:
    return ValueError(
        f"The checkpoint `{folder}` should be as it was written. Found {what}. Copy it again, or "
        "train anew in another folder."
    )


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, x in tensors.items() if not bool(x.isfinite().all())]
    if bad:
        raise FloatingPointError(
            "A checkpoint should hold finite numbers. Found others in "
            f"{', '.join(f'`{name}`' for name in bad[:5])}. The last good checkpoint is kept: "
            "lower the learning rate, or clip the gradient."
        )


def _recover(folder: Path) -> None:
    """Complete a replacement that was cut between its two renamings, or after them."""
    new, old = _beside(folder)
    if not folder.exists() and (new.exists() or old.exists()):
        _rename(new, old, folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)


def _rename(new: Path, old: Path, folder: Path) -> None:
    try:
        _verified(new)
    except ValueError:
        if old.exists():
            old.rename(folder)
    else:
        new.rename(folder)


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
