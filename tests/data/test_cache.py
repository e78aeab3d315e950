"""The cache of decoded files: equal to decoding, built once, whole or not there."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox import data
from equivox.data import cache, media
from equivox.data.base import MultimodalData

pytest.importorskip("PIL", reason="images need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("crema_d", tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _load(root: Path, folder: Path | None, **options: Any) -> MultimodalData:
    quick = {"size": 16, "encoder": "small", "frames": 2}
    return data.load("crema_d", root=root, cache=folder, **(quick | options))


def _epoch(loaded: MultimodalData, workers: int = 0) -> list[Any]:
    order = torch.Generator().manual_seed(0)
    return list(loaded.loader("train", 4, generator=order, num_workers=workers))


def _same(first: list[Any], second: list[Any]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a[0][m], b[0][m]) for a, b in pairs for m in a[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_with_a_cache_are_those_without(root: Path, folder: Path, workers: int) -> None:
    plain = _epoch(_load(root, None))
    assert _same(plain, _epoch(_load(root, folder), workers))
    assert _same(plain, _epoch(_load(root, folder), workers))


def test_a_cache_is_built_once_and_nothing_is_decoded_again(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _load(root, folder)
    expected = _epoch(first)

    def never(*_: Any) -> None:
        raise AssertionError("decoded although there is a cache")

    monkeypatch.setattr(media, "read_image", never)
    again = _load(root, folder)
    assert _same(expected, _epoch(again))
    assert first.facts["cache"] == again.facts["cache"]
    assert first.options == again.options == _load(root, None).options
    assert len(list(folder.iterdir())) == 1


def test_the_loads_go_to_other_processes(root: Path, folder: Path) -> None:
    loaded = _load(root, folder)
    expected = loaded.test[0][0]["visual"]
    other = pickle.loads(pickle.dumps(loaded.test))
    assert torch.equal(other[0][0]["visual"], expected)


def test_another_preprocessing_is_another_cache(root: Path, folder: Path) -> None:
    first, second = _load(root, folder), _load(root, folder, audio="fbank")
    assert first.facts["cache"] != second.facts["cache"]
    assert len(list(folder.iterdir())) == 2


def test_a_replaced_file_is_decoded_again(root: Path, folder: Path) -> None:
    first = _load(root, folder).facts["cache"]
    path = next((root / "AudioWAV").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:44] + whole[44:] + b"\0" * 100)
    assert _load(root, folder).facts["cache"] != first


def test_a_file_replaced_by_one_of_its_size_is_decoded_again(root: Path, folder: Path) -> None:
    first = _load(root, folder)
    for path in (root / "AudioWAV").iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[:44] + b"\0" * (len(whole) - 44))
        os.utime(path, ns=(0, 1_000_000_001))
    again = _load(root, folder)
    assert again.facts["cache"] != first.facts["cache"]
    assert not torch.equal(again.test[0][0]["audio"], first.test[0][0]["audio"])


@pytest.mark.parametrize(
    ("what", "value"), [("preprocessing", "v0-00000000"), ("set", "food101"), ("files", "0")]
)
def test_a_cache_of_something_else_is_refused(
    root: Path, folder: Path, what: str, value: str
) -> None:
    place = Path(_load(root, folder).facts["cache"])
    index = json.loads((place / "index.json").read_text())
    (place / "index.json").write_text(json.dumps(index | {what: value}))
    with pytest.raises(ValueError, match=f"Found one of `{value}`. Delete that folder"):
        _load(root, folder)


@pytest.mark.parametrize("name", ["index.json", "audio.bin", "visual.bin"])
def test_a_damaged_cache_is_refused(root: Path, folder: Path, name: str) -> None:
    place = Path(_load(root, folder).facts["cache"])
    whole = (place / name).read_bytes()
    (place / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="should hold a whole cache"):
        _load(root, folder)
    shutil.rmtree(place)
    _load(root, folder)


def test_a_full_disk_is_told_and_nothing_is_left(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(_: Any, x: torch.Tensor) -> None:
        written.append(x)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write", full)
        with pytest.raises(OSError, match="Found no space left") as raised:
            _load(root, folder)
    assert raised.value.errno == errno.ENOSPC
    assert not list(folder.iterdir())
    _load(root, folder)


def test_a_damaged_file_ends_the_build_and_is_named(root: Path, folder: Path) -> None:
    path = sorted((root / "AudioWAV").iterdir())[7]
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"{path.name}` should be a whole sound file"):
        _load(root, folder)
    assert not list(folder.iterdir())


def test_all_damaged_files_are_named_at_once(root: Path, folder: Path) -> None:
    sounds = sorted((root / "AudioWAV").iterdir())[3:6]
    for path in (*sounds, root / "Image-01-FPS" / sounds[0].stem / "00002.jpg"):
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="Found 4 damaged") as raised:
        _load(root, folder)
    assert all(path.name in str(raised.value) for path in sounds)
    assert "00002.jpg" in str(raised.value)
    assert not list(folder.iterdir())


def test_a_killed_build_of_the_same_number_is_in_nobodys_way(root: Path, folder: Path) -> None:
    place = Path(_load(root, folder).facts["cache"])
    left = place.with_name(f"{place.name}.partial-{socket.gethostname()}-{os.getpid()}")
    place.rename(left)
    (left / "more.bin").write_bytes(b"")
    assert Path(_load(root, folder).facts["cache"]) == place
    assert [path.name for path in folder.iterdir()] == [place.name]
    assert not (place / "more.bin").exists()


KILLED = """
import os, signal, sys
from equivox import data
from equivox.data import cache
count = []
def write(file, x):
    file.write(x.numpy().tobytes())
    count.append(x)
    if len(count) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
cache._write = write
data.load("crema_d", root=sys.argv[1], cache=sys.argv[2], size=16, encoder="small", frames=2)
"""


def test_a_killed_build_leaves_nothing_that_is_used(root: Path, folder: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(root), str(folder)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert ".partial-" in left.name
    assert _same(_epoch(_load(root, None)), _epoch(_load(root, folder)))
    (place,) = folder.iterdir()  # what was left is gone
    assert ".partial-" not in place.name


def test_a_faster_process_wins(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = cache._renamed

    def late(partial: Path, place: Path) -> None:
        shutil.copytree(partial, place)
        renamed(partial, place)

    monkeypatch.setattr(cache, "_renamed", late)
    loaded = _load(root, folder)
    assert [path.name for path in folder.iterdir()] == [Path(loaded.facts["cache"]).name]
