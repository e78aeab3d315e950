"""Killed runs and damaged files: a few of those of `benchmarks/reliability.py`."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from reliability_files import corpus, files
from reliability_reading import read_damaged

from equivox.bench.experiment import Experiment
from equivox.bench.files import read_json, shaped
from equivox.bench.folder import CONFIG, Folder
from equivox.data.pickles import read_pickle

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "reliability.py"
FILES = 500


def test_killed_runs_end_like_uncut_ones(tmp_path: Path) -> None:
    options = ["--kills", "10", "--files", "0", "--methods", "smv", "--seed", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_damaged_files_are_refused_clearly_or_still_right(tmp_path: Path) -> None:
    corpus(tmp_path)
    kinds = files(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of infinite numbers and the like, which are then refused
        outcomes = [read_damaged(number, 0, tmp_path, kinds) for number in range(FILES)]
    assert [outcome for outcome in outcomes if outcome.what == "broken"] == []
    assert {o.file for o in outcomes if o.what == "refused"} == {file.name for file in kinds}
    assert sum(outcome.what == "accepted" for outcome in outcomes) > FILES / 20


def test_whole_files_are_read(tmp_path: Path) -> None:
    corpus(tmp_path)
    assert all(file.right(file.read()) for file in files(tmp_path))


def test_a_run_that_was_killed_in_writing_its_configuration_begins_anew(tmp_path: Path) -> None:
    (tmp_path / f".{CONFIG}.new").write_text('{"experi')
    Folder(tmp_path, Experiment("latent2"))
    assert (tmp_path / CONFIG).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # the last of 2^31 places in the memo
        b"\x80\x04\x8e" + (2**50).to_bytes(8, "little") + b".",  # 2^50 bytes
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",  # 2^31 zeros
        b"cnumpy\nndarray\n((I99999\nI99999\nltR.",
    ],
)
def test_a_pickle_gets_no_more_memory_than_it_has_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pkl"):
        read_pickle(tmp_path / "a.pkl")


def test_bytes_of_old_pickles_are_read(tmp_path: Path) -> None:
    values = [b"", b"abc", bytearray(b"\xff")]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(values, protocol=2))
    assert read_pickle(tmp_path / "a.pkl") == values


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\xff", "decode"),
        (b"[" * 100_000, "recursion"),
        (b"[1]", r"\[1\]"),
        (b"{}", "no `epochs`"),
        (b'{"epochs": true}', "`epochs = True`"),
        (b'{"epochs": "2"}', "`epochs = '2'`"),
    ],
)
def test_a_json_file_says_what_is_wrong_with_it(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json` should hold numbers. Found: .*{found}.*Go."):
        read_json(path, "numbers", "Go.", lambda value: shaped(value, {"epochs": int}))
