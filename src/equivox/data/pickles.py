"""Pickles without their danger: plain containers, numbers, strings and NumPy arrays, nothing else.

A pickle is a program, and reading a foreign one runs it. This reader refuses every name that a
pickle asks for but the few below, and names what it refused. A few bytes of a pickle may also ask
for any amount of memory or time, and NumPy takes the states of arrays as they are: so each array is
made of as many bytes as it has, and nothing is copied or repeated beyond what the file holds.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

SHARED = 10_000_000
"""The most values of a file of fewer bytes, each counted as often as it occurs."""

KEY = 16
"""The most parts of a key, or of a member of a set."""

AXES = 64
"""The most that NumPy knows."""

_CODE = re.compile(r"[<>|=]?[biufcSUO?]\d*")


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
                found = _Reader(content, encoding).load()
                _check_shared(found, len(content))
                return found
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
    """A pickle asks for this."""


# ── plain values ────────────────────────────────────────────────────────────────────────────────


def _key(key: Any) -> Any:
    """A key or a member of a set; tuples in tuples are hashed as often as they occur."""
    parts = key if isinstance(key, tuple | frozenset) else ()
    if len(parts) > KEY or any(isinstance(part, tuple | frozenset) for part in parts):
        raise _RefusedError("a key of nested or many parts")
    return key


def _collected(kind: Any, values: Iterable[Any] = ()) -> Any:
    if type(values) not in (list, tuple):
        raise _RefusedError(f"{kind.__name__} of {type(values).__name__}")
    if issubclass(kind, dict):
        return kind((_key(key), value) for key, value in values)
    return kind(map(_key, values) if issubclass(kind, set | frozenset) else values)


def _with_default(kind: Any, default: Any = None) -> Any:
    if not (default is None or isinstance(default, type)):
        raise _RefusedError(f"{kind.__name__} of {type(default).__name__}")
    return kind(default)


def _octets(kind: Any, values: Any = b"", *encoding: Any) -> Any:
    """Bytes from a text, from bytes or from a list; from a number they would be as many zeros."""
    if isinstance(values, str):
        return kind(_encoded(values, *encoding))
    if type(values) not in (bytes, bytearray, list):
        raise _RefusedError(f"{kind.__name__} of {type(values).__name__}")
    return kind(values)


def _number(kind: Any, *values: Any) -> Any:
    """A number from numbers: of anything else it may become as long as one likes."""
    if not all(isinstance(value, int | float) for value in values):
        raise _RefusedError(f"a call of {kind.__name__}")
    return kind(*values)


def _text(value: Any) -> Any:
    """A name that Python 2 wrote, where its strings are left as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes; no other codec is admitted."""
    encoding = _text(encoding)
    if not (isinstance(text, str) and isinstance(encoding, str)):
        raise _RefusedError("_codecs.encode of no text")
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"_codecs.encode with {encoding}")
    return text.encode("latin1")


_MAKERS: dict[type, Callable[..., Any]] = {
    **dict.fromkeys((list, tuple, set, frozenset, dict, OrderedDict), _collected),
    **dict.fromkeys((bytes, bytearray), _octets),
    **dict.fromkeys((int, float, complex, str), _number),
    defaultdict: _with_default,
}
"""What makes a value where a pickle calls a type."""

# ── arrays ──────────────────────────────────────────────────────────────────────────────────────


class _Unfinished:
    """An array or a dtype, which is made of the state that follows it in the pickle."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make
        self.value: Any = None

    def finished(self, *state: Any) -> Any:
        self.value = self.make(*state)
        return self.value


class _Memo(dict[int, Any]):
    """What a pickle refers to again: arrays and dtypes once they are finished."""

    def __getitem__(self, place: int) -> Any:
        found = super().__getitem__(place)
        finished = isinstance(found, _Unfinished) and found.value is not None
        return found.value if finished else found


def _ndarray(*_: Any) -> NoReturn:
    """What pickles name for `_reconstruct` alone; called, it would make an array of any size."""
    raise _RefusedError("a call of numpy.ndarray")


def _dtype(code: Any, *_: Any) -> _Unfinished:
    """Of numbers, strings or objects; one with fields could take any bytes for objects."""
    import numpy

    text = _text(code)
    if not (isinstance(text, str) and _CODE.fullmatch(text)):
        raise _RefusedError(f"numpy.dtype of {text[:40] if isinstance(text, str) else type(text)}")
    plain: Any = numpy.dtype(text)

    def make(_: Any, order: Any, subtype: Any, names: Any, fields: Any, *__: Any) -> Any:
        if any(part is not None for part in (subtype, names, fields)):
            raise _RefusedError("numpy.dtype with fields")
        return plain.newbyteorder(_text(order))

    return _Unfinished(make)


def _reconstruct(*_: Any) -> _Unfinished:
    """An array, which its state then fills."""
    import numpy

    def make(_: Any, shape: Any, dtype: Any, columns: Any, raw: Any) -> Any:
        raw = _checked(dtype, shape, raw)
        if not dtype.itemsize and math.prod(shape):
            raise ValueError("an array of empty strings without a length")
        array: Any = numpy.empty(0, numpy.int8)
        array.__setstate__((1, shape, dtype, bool(columns), raw))
        return array

    return _Unfinished(make)


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Any:
    """How protocol 5 writes an array."""
    import numpy

    flat = numpy.frombuffer(_checked(dtype, shape, raw), dtype)
    if axes is not None:
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _scalar(dtype: Any, raw: Any) -> Any:
    import numpy

    raw = _checked(dtype, (), raw)
    return numpy.frombuffer(raw, dtype)[0] if raw else dtype.type()


def _is_length(x: Any) -> bool:
    return type(x) is int and 0 <= x < 1 << 63


def _checked(dtype: Any, shape: Any, raw: Any) -> Any:
    """The content of an array; NumPy takes states as they are, and reads beyond one too short."""
    import numpy

    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    axes = isinstance(shape, tuple) and len(shape) <= AXES
    if not (axes and isinstance(dtype, numpy.dtype) and all(map(_is_length, shape))):
        raise ValueError("an array without dtype or shape")
    objects = dtype.kind == "O"
    wanted = math.prod(shape) * (1 if objects else dtype.itemsize)
    if type(raw) not in ((list,) if objects else (bytes, bytearray)) or len(raw) != wanted:
        raise ValueError(f"an array that should have {wanted} {'objects' if objects else 'bytes'}")
    if dtype.kind == "U" and raw:
        _check_letters(numpy.frombuffer(raw, f"{dtype.byteorder}u4"))
    return raw


def _check_letters(numbers: Any) -> None:
    """NumPy itself looks at a letter no earlier than it is taken out."""
    if (numbers > sys.maxunicode).any():
        raise ValueError("an array of letters beyond the last")


# ── the reader ──────────────────────────────────────────────────────────────────────────────────

_BUILTINS = {kind.__name__: kind for kind in _MAKERS if kind.__module__ == "builtins"}
_MULTIARRAY = {"_reconstruct": _reconstruct, "scalar": _scalar}
_NAMES: dict[str, Mapping[str, Any]] = {
    "builtins": _BUILTINS,
    "__builtin__": {**_BUILTINS, "unicode": str, "long": int},
    "collections": {"OrderedDict": OrderedDict, "defaultdict": defaultdict},
    "_codecs": {"encode": _encoded},
    "numpy": {"ndarray": _ndarray, "dtype": _dtype},
    "numpy.core.multiarray": _MULTIARRAY,
    "numpy._core.multiarray": _MULTIARRAY,
    "numpy.core.numeric": {"_frombuffer": _frombuffer},
    "numpy._core.numeric": {"_frombuffer": _frombuffer},
}
_KINDS = ("float32", "float64", "int32", "int64", "bool_", "str_")


class _Reader(pickle._Unpickler):
    """The reader of the standard library that is written in Python, less what is not plain.

    That in C reserves whatever lengths and places a damaged number asks for.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, content: mmap.mmap, encoding: str) -> None:
        super().__init__(content, encoding=encoding)
        self.memo = _Memo()
        self.length = len(content)
        self.left = 2 * len(content)

    def find_class(self, module: str, name: str) -> Any:
        if name in (known := _NAMES.get(module, {})):
            return known[name]
        if module == "numpy" and name in _KINDS:
            import numpy

            return getattr(numpy, name)
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError(f"persistent id {pid if isinstance(pid, str) else type(pid).__name__}")

    def _called(self, call: Any, arguments: Sequence[Any]) -> Any:
        self._spend(arguments)
        if not callable(call):
            raise _RefusedError(f"a call of {type(call).__name__}")
        make = partial(_MAKERS.get(call, _number), call) if isinstance(call, type) else call
        return make(*arguments)

    def _spend(self, values: Sequence[Any]) -> None:
        """What is copied stands in the file: one long value could be named again and again."""
        copied = (str, bytes, bytearray, list, tuple)
        self.left -= len(values) + sum(len(value) for value in values if isinstance(value, copied))
        if self.left < 0:
            raise _RefusedError("more copies than the file has bytes")

    def _instantiate(self, klass: Any, arguments: Sequence[Any]) -> None:  # of protocol 0
        self.append(self._called(klass, arguments))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Unfinished):
            raise _RefusedError(f"a state of {type(self.stack[-1]).__name__}")
        self._spend(state)
        self.stack[-1] = self.stack[-1].finished(*state)

    def _update(self, items: Sequence[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise _RefusedError(f"items of {type(self.stack[-1]).__name__}")
        self.stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def _set_item(self) -> None:
        self._update([self.stack.pop(-2), self.stack.pop()])

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._update(items)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def _add_items(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise _RefusedError(f"members of {type(self.stack[-1]).__name__}")
        self.stack[-1].update(map(_key, items))

    def _frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))

    def _put(self) -> None:
        place = int.from_bytes(self.read(4), "little")
        if place > self.length:
            raise ValueError(f"`LONG_BINPUT` of {place}")
        self.memo[place] = self.stack[-1]

    def _bytearray(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(length)))

    def _frame(self) -> None:
        self.read(8)  # the file is mapped: frames would be read twice

    def _refuse(self) -> NoReturn:
        raise _RefusedError("an instance, an extension or a buffer outside of it")


_CODES: dict[str, Callable[[_Reader], None]] = {
    "REDUCE": _Reader._reduce,
    "BUILD": _Reader._build,
    "DICT": _Reader._dict,
    "SETITEM": _Reader._set_item,
    "SETITEMS": _Reader._set_items,
    "ADDITEMS": _Reader._add_items,
    "FROZENSET": _Reader._frozenset,
    "LONG_BINPUT": _Reader._put,
    "BYTEARRAY8": _Reader._bytearray,
    "FRAME": _Reader._frame,
    **dict.fromkeys(
        ("NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"),
        _Reader._refuse,
    ),
}
_Reader.dispatch = dict(pickle._Unpickler.dispatch)
_Reader.dispatch |= {getattr(pickle, name)[0]: read for name, read in _CODES.items()}


def _check_shared(found: Any, length: int) -> None:
    """Refuse lists in lists that are named again so often that nobody can go through them."""
    if _count(found, {}) > max(SHARED, length):
        raise _RefusedError("the same values again and again")


def _count(value: Any, known: dict[int, float]) -> float:
    """How many values it holds, each as often as it occurs; endless where it holds itself."""
    objects = getattr(getattr(value, "dtype", None), "kind", "") == "O"
    if not (objects or isinstance(value, list | tuple | dict)):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        parts = value.flat if objects else value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
