"""The random state of a run: what it is, how it is kept, and how it is written down."""

from __future__ import annotations

import base64
import ctypes
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

State = dict[str, Any]

_TWISTER = 4 * 625
"""Bytes of NumPy's Mersenne twister: 624 words and the position in them."""


def generators(loader: Any) -> list[torch.Generator]:
    """The generators that a loader, its samplers and its data set draw from, each once."""
    batches = getattr(loader, "batch_sampler", None)
    owners = [loader, getattr(loader, "sampler", None), batches]
    owners += [getattr(batches, "sampler", None), getattr(loader, "dataset", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def random_state(loader: Any = None, devices: bool = True, before: State | None = None) -> State:
    """The state of torch's, Python's and NumPy's generators, and of the loader's own.

    With the state `before`, what has not been drawn from since is taken over from it: NumPy takes
    long to tell its own.
    """
    state: State = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "loader": [g.get_state() for g in generators(loader)],
    }
    if "numpy" in sys.modules:
        state["numpy"], state["words"] = _numpy_state(before)
    if devices and torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _numpy_state(before: State | None) -> tuple[Any, bytes]:
    """NumPy's legacy state, and the words of its Mersenne twister: equal words, no draw since.

    But for a normal draw that was put by (the fourth entry of the state): to use it moves nothing.
    """
    numpy = sys.modules["numpy"]
    bits = numpy.random.get_bit_generator()
    if type(bits).__name__ != "MT19937":  # somebody has set another
        return numpy.random.get_state(legacy=False), b""
    words = ctypes.string_at(bits.ctypes.state_address, _TWISTER)
    if before is not None and before.get("words") == words and not before["numpy"][3]:
        return before["numpy"], words
    return numpy.random.get_state(), words


def set_random_state(state: State, loader: Any = None) -> None:
    """Put everything that `random_state` noted back."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    for generator, kept in zip(generators(loader), state["loader"], strict=False):
        generator.set_state(kept)
    if "numpy" in state:
        import numpy

        numpy.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def preserved_random_state(loader: Any = None) -> Iterator[None]:
    """Whatever is drawn inside, the random state outside is untouched."""
    state = random_state(loader)
    try:
        yield
    finally:
        set_random_state(state, loader)


def to_json(state: State) -> Any:
    """A random state in plain JSON values."""
    plain = {
        "torch": text_of(state["torch"]),
        "python": [state["python"][0], list(state["python"][1]), state["python"][2]],
        "loader": [text_of(kept) for kept in state["loader"]],
    }
    if "numpy" in state:
        plain["numpy"] = state["numpy"]
        if isinstance(state["numpy"], tuple):
            name, keys, *rest = state["numpy"]
            plain["numpy"] = [name, keys.tolist(), *rest]
    if "cuda" in state:
        plain["cuda"] = [text_of(kept) for kept in state["cuda"]]
    return plain


def from_json(plain: Any) -> State:
    """The random state that `to_json` wrote."""
    version, words, gauss = plain["python"]
    state: State = {
        "torch": state_of(plain["torch"]),
        "python": (version, tuple(words), gauss),
        "loader": [state_of(kept) for kept in plain["loader"]],
    }
    if "numpy" in plain:
        state["numpy"] = plain["numpy"]
        if isinstance(plain["numpy"], list):
            import numpy

            name, keys, *rest = plain["numpy"]
            state["numpy"] = (name, numpy.array(keys, dtype=numpy.uint32), *rest)
    if "cuda" in plain:
        state["cuda"] = [state_of(kept) for kept in plain["cuda"]]
    return state


def text_of(state: torch.Tensor) -> str:
    """A generator's state as text."""
    return base64.b64encode(bytes(state.tolist())).decode()


def state_of(text: str) -> torch.Tensor:
    """The generator's state that `text_of` wrote."""
    return torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8)
