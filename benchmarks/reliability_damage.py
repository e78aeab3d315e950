"""Damage to files, at random: in their bytes, and in the structure of what they hold.

Each is a function of a file's content and a source of draws. A damaged file may still be a right
one.
"""

from __future__ import annotations

import io
import json
import pickletools
import random
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy

Damage = Callable[[bytes, random.Random], bytes]
DEEP, HUGE = 100_000, 10**400


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────


def flipped(content: bytes, draw: random.Random) -> bytes:
    """One to eight bits turned over."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def truncated(content: bytes, draw: random.Random) -> bytes:
    """The beginning, or the end."""
    cut = draw.randrange(len(content))
    return draw.choice([content[:cut], content[cut:]])


def overwritten(content: bytes, draw: random.Random) -> bytes:
    """A piece replaced by zeros, ones or noise; a piece of ones is a huge number."""
    place = _piece(content, draw)
    size = len(content[place])
    new = draw.choice([b"\0" * size, b"\xff" * size, draw.randbytes(size)])
    return content[: place.start] + new + content[place.start + size :]


def moved(content: bytes, draw: random.Random) -> bytes:
    """A piece left out, written twice, or put elsewhere."""
    place, other = _piece(content, draw), draw.randrange(len(content) + 1)
    rest = content[: place.start] + content[place.stop :]
    twice = content[: place.stop] + content[place.start :]
    return draw.choice([rest, twice, rest[:other] + content[place] + rest[other:]])


def _piece(content: bytes, draw: random.Random) -> slice:
    start = draw.randrange(len(content) + 1)
    return slice(start, start + draw.choice([1, 2, 4, 8, 64, 1024]))


def replaced(content: bytes, draw: random.Random) -> bytes:
    """Something else: nothing, noise, a document of another shape, or one without end."""
    others = [b"", b"\0" * 100, draw.randbytes(100), b"null", b"[]", b"{}", b"0", b'"text"', b"NaN"]
    deep = [b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP, b"1" * 5000, b"- " * 5000]
    return draw.choice([*others, *deep, content * 2])


def recoded(content: bytes, draw: random.Random) -> bytes:
    """Another encoding of the text, or letters that are in none."""
    text = content.decode("latin1")
    code = draw.choice(["utf-16", "utf-8-sig", "utf-32", "cp500"])
    letters = draw.choice([b"\xe9", b"\xc3\xa9", b"\xc3\xbf\xc3\xbe", b"\xe2\x80\xa8", b"\0"])
    place = draw.randrange(len(content) + 1)
    return draw.choice([text.encode(code), content[:place] + letters + content[place:]])


BYTES: tuple[Damage, ...] = (flipped, truncated, overwritten, moved, replaced, recoded)


# ── JSON and YAML ───────────────────────────────────────────────────────────────────────────────

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7.5, 2**31, 2**63, -(2**63), HUGE, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", "1", "joint", "\ud800", "x" * 10_000, "../..", "/dev/zero"),
    *([], {}, [[]], {"": {}}, [0] * 3, [None] * 1000, {"dict": 1}, {"tensor": "0"}),
)


def json_changed(content: bytes, draw: random.Random) -> bytes:
    """A value, a name or a part of a JSON document that is another one."""
    try:
        text = json.dumps(_changed(json.loads(content), draw), indent=1)
    except ValueError:  # two values changed their places, of which one holds the other
        return b"[]"
    lines = text.split("\n")
    place = draw.randrange(len(lines))
    if draw.random() < 0.05:
        lines.insert(place, lines[place])
    elif draw.random() < 0.05:
        lines[place] = lines[place].partition(":")[0] + ":" + "[" * DEEP + "]" * DEEP + ","
    return "\n".join(lines).encode()


def lines_changed(content: bytes, draw: random.Random) -> bytes:
    """One line of JSON that is another one."""
    lines = content.splitlines()
    place = draw.randrange(len(lines))
    lines[place] = json_changed(lines[place], draw).replace(b"\n", b"")
    return b"\n".join(lines) + b"\n"


def _changed(plain: Any, draw: random.Random) -> Any:
    """Plain values of which one is odd, gone, wrapped, renamed or in another's place."""
    places = list(_places(plain))
    holder, key = draw.choice(places)
    named = isinstance(holder, dict)
    match draw.randrange(8):
        case 0:
            del holder[key]
        case 1:
            holder[key] = [holder[key]]
        case 2 if named:
            holder[draw.choice(["", "a", "Data", "\u00e9", f"{key} "])] = holder.pop(key)
        case 3 if named:
            holder["unknown"] = draw.choice(ODD)
        case 4:
            other, name = draw.choice(places)
            holder[key], other[name] = other[name], holder[key]
        case _:
            holder[key] = draw.choice(ODD)
    return plain


def _places(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a document, as a container and the key in it."""
    if isinstance(plain, dict | list):
        for key in list(plain) if isinstance(plain, dict) else range(len(plain)):
            yield plain, key
            yield from _places(plain[key])


YAML = (
    *(
        "",
        "~",
        "true",
        "-1",
        "1e400",
        ".nan",
        "1" * 5000,
        "2020-01-01",
        "!!binary AA",
        "0o7",
        "1_0",
    ),
    *("[]", "{}", "[[1]]", "{a: 1}", "!!python/object:os.system x", "!!set {a}", "&x [*x]", "'"),
    *("[" * 5000, "*a", "|", ">-", "\tx", "@x", "\0", "2020-99-99", "1:30:00", "joint", "<<"),
)


def yaml_changed(content: bytes, draw: random.Random) -> bytes:
    """YAML with a value, a name or a sign that is another one."""
    lines = content.decode().split("\n")
    place = draw.randrange(len(lines))
    bomb = [f"a{n + 1}: &b{n + 1} [{', '.join([f'*b{n}'] * 9)}]" for n in range(20)]
    name = lines[place].partition(":")[0]
    others = ["\n".join(["a0: &b0 [1, 2]", *bomb]), f"{name}: 1\n{name}: 1", "unknown: 1", "  - x"]
    values = [f"{name}: {value}" for value in YAML]
    new = draw.choice([*values, *others, "&a a: *a", "<<: 1", "? [a]\n: 1", ""])
    lines[place : place + draw.randrange(2)] = [new]
    return "\n".join(lines).encode()


# ── arrays and pickles ──────────────────────────────────────────────────────────────────────────


def header_changed(content: bytes, draw: random.Random) -> bytes:
    """Safetensors whose header says something else of the same numbers."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json_changed(content[8:end], draw)
    size = draw.choice([len(header)] * 8 + [len(header) + 1, 2**40, 2**64 - 1])
    return size.to_bytes(8, "little") + header + content[end:]


def arrays_changed(content: bytes, draw: random.Random) -> bytes:
    """An npz file with an array that is another one, or whose header lies, with right checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = draw.choice(list(members))
    if draw.random() < 0.4:
        members[name] = draw.choice([flipped, truncated, overwritten, moved])(members[name], draw)
    else:
        members[name] = _array_changed(members[name], draw)
    if draw.random() < 0.1:
        members[draw.choice(["a", "a.npy", "../a.npy"])] = members.pop(name)
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as file:
        for member, inside in members.items():
            file.writestr(member, inside)
    return found.getvalue()


def _array_changed(content: bytes, draw: random.Random) -> bytes:
    array = numpy.load(io.BytesIO(content))
    found = io.BytesIO()
    with numpy.errstate(all="ignore"):
        numpy.save(found, draw.choice(WORDS if array.dtype.kind == "U" else ARRAYS)(array))
    return found.getvalue()


def _set(kind: str, value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.astype(kind)
        array.flat[array.size // 2] = value
        return array

    return change


WORDS: tuple[Callable[[Any], Any], ...] = (
    *(lambda x: x.astype("O"), lambda x: x.astype("S1"), lambda x: x[:-1], lambda x: x[:0]),
    *(lambda x: x[None], lambda x: x[0], lambda x: numpy.arange(len(x))),
)
ARRAYS = (
    *WORDS,
    *(lambda x, kind=kind: x.astype(kind) for kind in ("c8", "U3", "?", "f2", "u8", "M8[s]")),
    *(lambda x: x.T, lambda x: x.ravel(), lambda x: x[..., None], lambda x: x.sum()),
    *(lambda x: x * 0 - 1, lambda x: x[::-1], lambda x: x.view("V1")),
    *(lambda x: x.astype("f8") * 1e300, lambda x: x.astype("i8") + 2**40),
    *(_set("f8", value) for value in (float("nan"), float("inf"), 1e30, -1, 9, 0.5)),
)


def opcodes_changed(content: bytes, draw: random.Random) -> bytes:
    """A pickle with an instruction that another program, a hostile one, would have."""
    places = [place for _, _, place in pickletools.genops(content)]
    start = draw.randrange(1, len(places))
    end = draw.choice([start, min(start + 1, len(places) - 1)])
    large = draw.choice([2**16, 2**24, 2**26, 2**28, 2**31 - 1])
    four, eight = large.to_bytes(4, "little"), (large << draw.randrange(24)).to_bytes(8, "little")
    with_length = [*(code + four for code in b"r.j.T.X.B.\x8b".split(b".")), b"\x95" + eight]
    new = draw.choice(
        [
            *(*with_length, b"\x8e" + eight, b"\x8d" + eight, b"\x96" + eight, b"p%d\n" % large),
            *(b"cos\nsystem\n(S'true'\ntR", b"cbuiltins\neval\n(S'1'\ntR", b"cnumpy\nload\n"),
            b"cbuiltins\nbytearray\n(J" + four + b"tR",
            b"cnumpy\nndarray\n((J" + four + b"J" + four + b"ltR",
            *(b"]" * DEEP, b"(" * DEEP, b"2" * DEEP, bytes([draw.randrange(256)])),
        ]
    )
    return content[: places[start]] + new + content[places[end] :]
