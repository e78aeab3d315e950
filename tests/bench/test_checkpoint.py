"""Checkpoints: whole or refused, and never worse than the one before."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from equivox.bench import checkpoint, files


def state(value: float = 1.0) -> dict[str, object]:
    tensor = torch.full((3,), value)
    return {
        "weights": {"a": tensor, "tied": tensor, "b": torch.arange(6).view(2, 3).T},
        "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "groups": [{"lr": 0.1}]},
        "nothing": None,
        "pair": (1, "two", True),
        "empty": torch.empty(0, 4),
        "half": torch.tensor(float("nan"), dtype=torch.float16),
    }


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", state())
    found = checkpoint.load(tmp_path / "last")
    assert found["weights"]["b"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["optimizer"] == {
        "state": {0: {"step": torch.tensor(2.0)}},
        "groups": [{"lr": 0.1}],
    }
    assert found["pair"] == (1, "two", True)
    assert found["empty"].shape == (0, 4)
    assert found["half"].isnan()
    assert found["half"].dtype == torch.float16


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"one": shared, "two": shared})
    checkpoint.save(tmp_path / "last", model.state_dict())
    found = checkpoint.load(tmp_path / "last")
    assert found["one.weight"] is found["two.weight"]
    model.load_state_dict(found)


def test_a_view_is_stored_alone(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", {"row": torch.zeros(1000, 1000)[0]})
    assert (tmp_path / "last" / checkpoint.TENSORS).stat().st_size < 10_000


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values"):
        checkpoint.save(tmp_path / "last", {"model": nn.Linear(1, 1)})
    with pytest.raises(TypeError, match="Keys"):
        checkpoint.save(tmp_path / "last", {1.5: 0})
    assert not checkpoint.exists(tmp_path / "last")


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.FACTS, checkpoint.MANIFEST])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "last"
    checkpoint.save(folder, state())
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="as it was written"):
        checkpoint.load(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match="as it was written"):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.FACTS])
def test_a_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "last"
    checkpoint.save(folder, state())
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"changed bytes in `{name}`"):
        checkpoint.load(folder)


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    checkpoint.save(folder, state())
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ValueError, match="format should be 1"):
        checkpoint.load(folder)


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Found none"):
        checkpoint.load(tmp_path / "last")


def test_a_non_finite_state_does_not_replace_a_good_one(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    checkpoint.save(folder, {"w": torch.ones(2)})
    bad = torch.tensor([1.0, float("inf")])
    with pytest.raises(FloatingPointError, match="`w`"):
        checkpoint.save(folder, {"w": bad}, {"w": bad})
    assert checkpoint.load(folder)["w"].tolist() == [1, 1]


def test_a_failing_write_does_not_replace_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "last"
    checkpoint.save(folder, {"w": torch.ones(2)})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            checkpoint.save(folder, {"w": torch.zeros(2)})
    assert checkpoint.load(folder)["w"].tolist() == [1, 1]
    checkpoint.save(folder, {"w": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_every_moment_of_a_replacement_leaves_a_whole_one(tmp_path: Path) -> None:
    """The folders as a killed process leaves them, from the first byte to the last renaming."""
    before, after = tmp_path / "before", tmp_path / "after"
    checkpoint.save(before, {"w": 0})
    checkpoint.save(after, {"w": 1})

    def found(**folders: Path) -> int:
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        for name, source in folders.items():
            shutil.copytree(source, place / {"new": ".x.new", "old": ".x.old", "x": "x"}[name])
        value: int = checkpoint.load(place / "x")["w"]
        assert not (place / ".x.old").exists()
        checkpoint.save(place / "x", {"w": 7})
        assert checkpoint.load(place / "x")["w"] == 7
        return value

    half = tmp_path / "half"
    shutil.copytree(after, half)
    (half / checkpoint.MANIFEST).unlink()
    assert found(x=before, new=half) == 0
    assert found(x=before, new=after) == 0
    assert found(old=before, new=after) == 1
    assert found(old=before, new=half) == 0
    assert found(x=after, old=before) == 1


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Each file or folder that is brought to the disk: its number, and the names in a folder."""
    found: list[tuple[int, list[str]]] = []
    sync = os.fsync

    def noting(handle: int) -> None:
        names = sorted(os.listdir(handle)) if stat.S_ISDIR(os.fstat(handle).st_mode) else []
        found.append((os.fstat(handle).st_ino, names))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    return found


@pytest.mark.skipif(os.name == "nt", reason="folders are not brought to the disk there")
def test_new_names_are_on_the_disk(tmp_path: Path, synced: list[tuple[int, list[str]]]) -> None:
    place = tmp_path.stat().st_ino
    files.replace(tmp_path / "a.json", b"{}")
    assert synced[-1] == (place, ["a.json"])
    synced.clear()
    files.make_folder(tmp_path / "one" / "two")
    files.make_folder(tmp_path / "one" / "two")
    one = (tmp_path / "one").stat().st_ino
    assert sorted(number for number, _ in synced) == sorted([place, one])
    synced.clear()
    checkpoint.save(tmp_path / "one" / "three" / "last", state())
    assert (one, ["three", "two"]) in synced
