"""The peak of the memory that tensors take."""

from __future__ import annotations

import weakref
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def meter(device: str) -> LiveTensors | Allocated:
    """A context in which `reset` sets `peak` to what is taken now, and `peak` tells the most since.

    >>> with meter("cpu") as memory:
    ...     x = torch.ones(1000)
    ...     memory.reset()
    ...     y = (x + 1).sum()  # 4,000 bytes of x, 4,000 of x + 1, 4 of the sum
    >>> memory.peak
    8004
    """
    return Allocated(device) if torch.device(device).type == "cuda" else LiveTensors()


class LiveTensors(TorchDispatchMode):
    """Bytes in the storages of tensors that operations returned and that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.taken = self.peak = 0
        self._sizes: dict[int, int] = {}

    def reset(self) -> None:
        """Forget the peak."""
        self.peak = self.taken

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for found in tree_leaves(result):
            if isinstance(found, Tensor):
                self._add(found.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # several tensors may share a storage
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.taken += storage.nbytes()
        self.peak = max(self.peak, self.taken)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.taken -= self._sizes.pop(key)


class Allocated:
    """Bytes that torch has allocated on a GPU."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def reset(self) -> None:
        """Forget the peak."""
        torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def peak(self) -> int:
        """The most since `reset`."""
        return torch.cuda.max_memory_allocated(self.device)
