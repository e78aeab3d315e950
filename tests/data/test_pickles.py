"""Pickles: plain values and arrays are read, anything else is refused by its name."""

from __future__ import annotations

import collections
import os
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox.data.arrays import read_array
from equivox.data.field import Damaged
from equivox.data.pickles import read_pickle


class Attack:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol: int, tmp_path: Path) -> None:
    value = {
        "train": [1, 2.5, "three", b"four", None, True, (1 + 2j), {5}, frozenset({6})],
        7: collections.OrderedDict(a=collections.defaultdict(list, b=[1])),
        "bytes": bytearray(b"x"),
    }
    assert read_pickle(_write(tmp_path / "a.pkl", value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.ones((2, 3))),
        np.array([True, False]),
        np.array(["a", "bc"]),
        np.array([b"a", b"bc"]),
        np.array([1, "a", [2.0]], dtype=object),
        np.float64(2.5),
        np.array([]),
        np.array(1.5),
        np.ones((2, 3, 4)).transpose(1, 0, 2),
        np.array([1, 2], dtype=">i2"),
        np.array([[1j]], dtype=np.complex64),
        np.array([["a"], [None]], dtype=object),
        np.str_(""),
        np.bytes_(b"a"),
        np.bool_(True),
    ],
)
def test_arrays_come_back(protocol: int, array: Any, tmp_path: Path) -> None:
    found = read_pickle(_write(tmp_path / "a.pkl", {"x": array}, protocol))["x"]
    assert found.dtype == array.dtype or array.dtype.byteorder == ">"
    assert type(found) is type(array)
    assert np.array_equal(found, array)


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    old = b"(dp0\nS'text'\np1\n(lp2\nS'caf\\xe9'\np3\nas."
    (tmp_path / "a.pkl").write_bytes(old)
    assert read_pickle(tmp_path / "a.pkl") == {"text": ["café"]}
    assert read_pickle(tmp_path / "a.pkl", encoding="bytes") == {b"text": [b"caf\xe9"]}


def _array(shape: bytes, code: bytes, content: bytes) -> bytes:
    """An array as Python 2 writes it; all three are opcodes."""
    dtype = b"cnumpy\ndtype\n" + code + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ"
    dtype += b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    start = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return start + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb."


def test_a_bytearray_of_python_2_is_read(tmp_path: Path) -> None:
    old = b"\x80\x02c__builtin__\nbytearray\nX\x03\x00\x00\x00a\xc3\xbfU\x07latin-1\x86R."
    (tmp_path / "a.pkl").write_bytes(old)
    for encoding in ("latin1", "bytes"):
        assert read_pickle(tmp_path / "a.pkl", encoding) == b"a\xff"


@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
def test_an_array_of_python_2_is_read(tmp_path: Path, encoding: str) -> None:
    content = _array(b"K\x02\x85", b"U\x02i2", b"U\x04\xff\x00\x01\x02")
    (tmp_path / "a.pkl").write_bytes(content)
    assert read_pickle(tmp_path / "a.pkl", encoding).tolist() == [255, 513]


@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_the_names_of_both_numpys_are_known(core: bytes, tmp_path: Path) -> None:
    values = {"x": np.arange(3), "y": np.float32(2)}
    content = pickle.dumps(values, protocol=2)
    for other in (b"numpy.core.", b"numpy._core."):
        content = content.replace(other, b"numpy." + core + b".")
    (tmp_path / "a.pkl").write_bytes(content)
    assert repr(read_pickle(tmp_path / "a.pkl")) == repr(values)


@pytest.mark.parametrize("protocol", range(6))
def test_values_that_occur_twice_stay_one(protocol: int, tmp_path: Path) -> None:
    array, words = np.arange(3.0), ["a"] * 1000
    value = {"x": [array, array], "y": words, ("z", 1): words, "types": (np.float32, str)}
    found = read_pickle(_write(tmp_path / "a.pkl", value, protocol))
    assert found["x"][0] is found["x"][1] and found["y"] is found["z", 1]
    assert found["types"] == value["types"]
    found["x"][0] += 1  # what was read can be changed


@pytest.mark.parametrize(
    "content",
    [
        _array(b"K\x09\x85", b"U\x02O8", b"](U\x01aU\x01be"),  # 9 objects of two
        _array(b"K\x09\x85", b"U\x02O8", b"U\x08aaaaaaaa"),  # objects where bytes say so
        _array(b"K\x09\x85", b"U\x02f4", b"U\x04aaaa"),
        _array(b"J\xff\xff\xff\xffK\x00\x86", b"U\x02f4", b"U\x00"),
        _array(b"J\xff\xff\xff\x7f\x85", b"U\x02U0", b"U\x00"),  # strings of no length
        _array(b"K\x01\x85", b"U\x02U1", b"U\x04aaaa"),  # a letter beyond the last
        _array(b"K\x01\x85", b"U\x02V8", b"U\x08aaaaaaaa"),
        _array(b"K\x01\x85", b"U\x05O8,O8", b"U\x10aaaaaaaaaaaaaaaa"),
        _array(b"K\x01\x85", b"U\x02f8", b"U\x08aaaaaaaa").replace(b"U\x01<N", b"U\x01<]"),
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'U200000000'\ntRtR.",
    ],
)
def test_an_array_has_no_more_than_stands_in_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pkl"):
        read_pickle(tmp_path / "a.pkl")


def _doubled(start: bytes, times: int = 40) -> bytes:
    """A value, and pairs of the pair before."""
    pairs = (b"q%ch%c" % (i, i) + b"\x86" for i in range(times))
    return start + b"K\x01K\x01\x86" + b"".join(pairs)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"cbuiltins\nbytes\ncnumpy\nint64\nJ\x00\x00\x00\x10\x85R\x85R.", "bytes of int64"),
        (_doubled(b"cbuiltins\nstr\n", 20) + b"\x85R.", "a call of str"),
        (_doubled(b"cnumpy\nstr_\n", 20) + b"\x85R.", "a call of str_"),
        (_doubled(b"cnumpy\nfloat64\n", 20) + b"\x85R.", "a call of float64"),
        (_doubled(b"}") + b"Ns.", "a key of"),
        (_doubled(b"(", 20) + b"Nd.", "a key of"),
        (_doubled(b"\x8f(") + b"\x90.", "a key of"),
        (_doubled(b"(") + b"\x91.", "a key of"),
        (_doubled(b"cbuiltins\nset\n](") + b"e\x85R.", "a key of"),
        (_doubled(b"") + b".", "the same values"),
        (_doubled(b"", 20) + b"Q.", "persistent id tuple"),
        (_doubled(b"c_codecs\nencode\nU\x01a", 20) + b"\x86R.", "encode of no text"),
        (b"]q\x00h\x00a.", "the same values"),
        (b"S'%s'\nq\x000" % (b"a" * 999) + b"cbuiltins\nbytes\nh\x00\x85R" * 99 + b".", "copies"),
        (b"cbuiltins\nlist\n)\x81.", "an instance"),
        (b"ccollections\nOrderedDict\n)R}U\x01aNsb.", "a state of OrderedDict"),
        (b"\x82\x01.", "an extension"),
    ],
)
def test_a_few_bytes_get_no_amount_of_memory_or_time(
    content: bytes, found: str, tmp_path: Path
) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + content)
    with pytest.raises(ValueError, match=f"Found `.*{found}"):
        read_pickle(tmp_path / "a.pkl")


def test_a_text_of_python_2_does_not_end_the_checks(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"S'\xff'\n0\x96\x00\x00\x00\x10\x00\x00\x00\x00a.")
    with pytest.raises(ValueError, match="should be a whole pickle"):
        read_pickle(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(b"S'\xff'\n0Nr\x00\x00\x00\x01.")
    with pytest.raises(ValueError, match="`LONG_BINPUT` of 16777216"):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Attack(os.system, "touch attacked"), r"(posix|nt)\.system"),
        (Attack(eval, "1 + 1"), r"builtins\.eval"),
        (Attack(getattr, "a", "upper"), r"builtins\.getattr"),
        (Attack(np.load, "a.npy"), r"numpy\.load"),
        (Attack(np.fromfile, "a"), r"numpy\.fromfile"),
        ([{"deep": (date(2020, 1, 1),)}], r"datetime\.date"),
        (np.array([date(2020, 1, 1)]), r"datetime\.date"),
        (torch.zeros(2), "torch"),
        (int.from_bytes, r"builtins\.getattr"),
    ],
)
def test_anything_else_is_refused_by_name(
    value: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"Found `{name}.*` in it, which is refused"):
        read_pickle(_write(tmp_path / "a.pkl", value))
    assert not (tmp_path / "attacked").exists()


def test_names_with_dots_are_refused(tmp_path: Path) -> None:
    attack = b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.data\x93."
    (tmp_path / "a.pkl").write_bytes(attack)
    with pytest.raises(ValueError, match=r"`numpy\.ndarray\.data`"):
        read_pickle(tmp_path / "a.pkl")


def test_other_codecs_are_refused(tmp_path: Path) -> None:
    attack = b"\x80\x04\x8c\x07_codecs\x8c\x06encode\x93\x8c\x01a\x8c\x04zlib\x86R."
    (tmp_path / "a.pkl").write_bytes(attack)
    with pytest.raises(ValueError, match=r"_codecs\.encode with zlib"):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("length", [0, 1, 10, 40])
def test_a_damaged_pickle_is_named(length: int, tmp_path: Path) -> None:
    whole = pickle.dumps({"x": np.arange(100)})
    (tmp_path / "a.pkl").write_bytes(whole[:length])
    with pytest.raises(ValueError, match=r"a\.pkl` should be a whole pickle"):
        read_pickle(tmp_path / "a.pkl")


# ── one array a file ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", ["npy", "pkl", "pt"])
def test_one_array_is_read_from_any_kind(ending: str, tmp_path: Path) -> None:
    path, array = tmp_path / f"a.{ending}", np.arange(6.0).reshape(2, 3)
    if ending == "npy":
        np.save(path, array)
    elif ending == "pkl":
        _write(path, array)
    else:
        torch.save(torch.from_numpy(array), path)
    found = read_array(path)
    assert found.dtype == torch.float32
    assert np.array_equal(found, array)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(Damaged, match=rf"a\.{ending}` should be a whole file"):
        read_array(path)


@pytest.mark.parametrize("ending", ["pkl", "pickle", "p", "pk", "pt", "pth", "npy", "PKL", "PT"])
def test_no_kind_runs_what_stands_in_it(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, attack = tmp_path / f"a.{ending}", Attack(os.system, "touch attacked")
    if ending.lower() in ("pt", "pth"):
        torch.save(attack, path)
    elif ending == "npy":
        with path.open("wb") as file:
            np.save(file, np.array([attack], dtype=object), allow_pickle=True)
    else:
        _write(path, attack)
    with pytest.raises(Damaged, match="array of numbers"):
        read_array(path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("ending", ["npy", "pt", "pth"])
def test_no_kind_runs_a_plain_pickle_under_its_name(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / f"a.{ending}", Attack(os.system, "touch attacked"), protocol=2)
    with pytest.raises(Damaged, match="array of numbers"):
        read_array(path)
    assert not (tmp_path / "attacked").exists()


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="array of numbers"):
        read_array(_write(tmp_path / "a.pkl", {"x": 1}))
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(Damaged, match="array of numbers"):
        read_array(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"Found `a\.mat`"):
        read_array(tmp_path / "a.mat")
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "nowhere.npy")
