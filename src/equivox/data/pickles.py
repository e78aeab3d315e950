"""Pickles without their danger: plain containers, numbers, strings and NumPy arrays, nothing else.

A pickle is a program, and reading a foreign one runs it. This reader refuses every name that a
pickle asks for but the few below, and names what it refused.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import IO, Any, NoReturn, cast

_PLAIN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (list, dict, set, frozenset, tuple, int, float, str, bytes, bytearray, complex)
    },
}
_NUMPY = {
    "numpy": ("ndarray", "dtype", "float32", "float64", "int32", "int64", "bool_", "str_"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
}


def read_pickle(path: Path, encoding: str = "latin1") -> Any:
    """What a pickle holds.

    :param path: Pickles of Python 2 too.
    :param encoding: Of the strings of Python 2; "bytes" leaves them as bytes.
    :raises ValueError: Where it asks for anything but plain values and arrays, which is named, or
        is damaged or no pickle.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_sizes(content)
                content.seek(0)
                return _Reader(content, encoding=encoding).load()
        except _RefusedError as error:
            raise ValueError(
                f"`{path}` should hold plain containers, numbers, strings and arrays. Found "
                f"`{error}` in it, which is refused: a pickle can run any code. Convert the file "
                "where you trust it, for example to `.npy`."
            ) from error
        except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
            raise ValueError(
                f"`{path}` should be a whole pickle. Found: {type(error).__name__}: {error}. "
                "Copy the file again."
            ) from error


def write_pickle(path: Path, values: Any) -> None:
    """Write plain values and arrays as the sets that are passed on as pickles have them."""
    path.write_bytes(pickle.dumps(values, protocol=4))


class _RefusedError(Exception):
    """A pickle asks for this name."""


def _check_sizes(content: mmap.mmap) -> None:
    """Refuse lengths beyond the end, as `genops` does, and places in the memo beyond its own.

    The reader reserves as much memory as a damaged number asks for before it looks further.
    """
    try:
        for code, argument, _ in pickletools.genops(cast("IO[bytes]", content)):
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(content):
                raise ValueError(f"`{code.name}` of {argument}")
    except UnicodeDecodeError:
        return  # a text of protocol 0, which `genops` takes for ASCII; there are no lengths in it


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in ("bytes", "bytearray") and (module, name) in _PLAIN:
            return lambda *arguments: _of_text(_PLAIN[module, name], *arguments)
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if (module, name) == ("_codecs", "encode"):
            return lambda *arguments: _encoded(*arguments)
        if name in _NUMPY.get(module, ()):
            return _of_numpy(module, name)
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError(f"persistent id {pid!r}")


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes; no other codec is admitted."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"_codecs.encode with {encoding}")
    return text.encode("latin1")


def _of_text(kind: Any, *arguments: Any) -> Any:
    """Bytes from a text or from bytes; from a number they would be as many zeros."""
    if arguments and isinstance(arguments[0], int):
        raise _RefusedError(f"{kind.__name__} of {arguments[0]}")
    return kind(*arguments)


def _array() -> NoReturn:
    """What pickles name for `_reconstruct` alone; called, it would make an array of any size."""
    raise _RefusedError("a call of numpy.ndarray")


def _of_numpy(module: str, name: str) -> Any:
    import numpy
    from numpy._core import multiarray, numeric

    # A pickle may set attributes of a function: it gets one of its own.
    if name == "ndarray":
        return lambda *_: _array()
    if name == "_reconstruct":  # an empty array, which its state then fills
        return lambda *_: multiarray._reconstruct(numpy.ndarray, (0,), b"b")
    if module == "numpy":
        return getattr(numpy, name)
    if name == "_frombuffer":
        return lambda *arguments: vars(numeric)[name](*arguments)
    return getattr(multiarray, name)
