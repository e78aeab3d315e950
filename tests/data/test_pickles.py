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
    ],
)
def test_arrays_come_back(protocol: int, array: Any, tmp_path: Path) -> None:
    found = read_pickle(_write(tmp_path / "a.pkl", {"x": array}, protocol))["x"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    old = b"(dp0\nS'text'\np1\n(lp2\nS'caf\\xe9'\np3\nas."
    (tmp_path / "a.pkl").write_bytes(old)
    assert read_pickle(tmp_path / "a.pkl") == {"text": ["café"]}
    assert read_pickle(tmp_path / "a.pkl", encoding="bytes") == {b"text": [b"caf\xe9"]}


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
