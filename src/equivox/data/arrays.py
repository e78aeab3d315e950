"""One array of numbers in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.data.field import Damaged
from equivox.data.pickles import read_pickle


def read_array(path: Path) -> Tensor:
    """The array in a `.npy`, `.pkl`, `.pickle`, `.p`, `.pk`, `.pt` or `.pth` file, as float32.

    :raises Damaged: Where the file is damaged or holds anything else.
    :raises ValueError: For another ending.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"Arrays are read from {', '.join(_READERS)} files. Found `{path.name}`.")
    try:
        return torch.as_tensor(reader(path)).to(torch.float32)
    except FileNotFoundError:
        raise
    except Exception as error:  # readers raise whatever the bytes make them stumble over
        raise Damaged(
            f"`{path}` should be a whole file of one array of numbers. Found: {error}"
        ) from error


def _npy(path: Path) -> Any:
    import numpy

    return numpy.load(path, allow_pickle=False)


def _pt(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _npy,
    **dict.fromkeys((".pkl", ".pickle", ".p", ".pk"), read_pickle),
    **dict.fromkeys((".pt", ".pth"), _pt),
}
