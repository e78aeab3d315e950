"""Frames as encoded pictures in hdf5 files: the same as in folders, and what may be wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.bench.experiment import Experiment
from equivox.bench.training import train
from equivox.cli import main
from equivox.console import FAILED
from equivox.data import loading, packed
from equivox.data.base import SPLITS, MultimodalData

pytest.importorskip("PIL", reason="frames need Pillow")
h5py = pytest.importorskip("h5py", reason="needs h5py")


@pytest.fixture(params=["balanced_av", "kinetics_sounds"])
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def _load(name: str, root: Path, **options: object) -> MultimodalData:
    return data.load(name, root=root, **(loading.module(name).QUICK | options))


@pytest.mark.parametrize("cache", [False, True])
def test_a_file_gives_what_a_folder_gives(name: str, tmp_path: Path, cache: bool) -> None:
    data.fake(name, tmp_path / "jpg")
    data.fake(name, tmp_path / "hdf5", visual="hdf5")
    assert data.check(name, tmp_path / "hdf5", visual="hdf5").whole
    folder = tmp_path / "cache" if cache else None
    mine = _load(name, tmp_path / "jpg")
    other = _load(name, tmp_path / "hdf5", visual="hdf5", cache=folder)
    assert mine.facts["left_out"] == other.facts["left_out"]
    for split in SPLITS:
        for (a, i, _), (b, j, _) in zip(_batches(mine, split), _batches(other, split), strict=True):
            assert torch.equal(a["visual"], b["visual"]) and torch.equal(i, j)


def _batches(loaded: MultimodalData, split: str) -> list[object]:
    return list(loaded.loader(split, 4, generator=torch.Generator().manual_seed(0)))  # type: ignore[arg-type]


def test_an_epoch_is_trained(name: str, tmp_path: Path) -> None:
    data.fake(name, tmp_path / "set", visual="hdf5")
    options = loading.module(name).QUICK | {"root": str(tmp_path / "set"), "visual": "hdf5"}
    assert train(Experiment(name, epochs=1, batch_size=4, data_options=options)).epochs == 1


def test_the_form_of_bml_is_read(tmp_path: Path) -> None:
    root = tmp_path / "set"
    data.fake("balanced_av", root, visual="hdf5")
    listed = json.loads((root / "balanced_av.json").read_text())
    for facts in listed["database"].values():
        facts["label"] = facts["label"].replace(" ", "_").replace("typing", "tickling")
        facts["label"] = facts["label"].replace("flute", "organ")
    (root / "KS_train_val.json").write_text(json.dumps(listed))
    bml = {"lists": "json", "visual": "hdf5", "audio": "pkl", "least": 1}
    loaded = _load("kinetics_sounds", root, **bml)
    assert loaded.shapes["audio"] == (1, 257, 1004)
    assert [len(getattr(loaded, split)) for split in SPLITS] == [6, 3, 3]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    data.fake("balanced_av", root, visual="hdf5")
    files = sorted((root / "visual").glob("*.hdf5"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    files[1].write_bytes(b"nothing")
    packed.write(files[2], [packed.read(files[2])[0][:200]])
    packed.write(files[3], [])
    with h5py.File(files[4], "w") as file:
        file["pictures"] = [1, 2]
    files[5].unlink()
    report = data.check("balanced_av", root, visual="hdf5")
    corrupt = {path: why for bad in report.corrupt.values() for path, why in bad.items()}
    assert sorted(corrupt) == [str(path) for path in files[:5]]
    assert "whole hdf5 file" in corrupt[str(files[0])]
    assert "whole image" in corrupt[str(files[2])]
    assert "should hold frames. Found none" in corrupt[str(files[3])]
    assert [path for found in report.missing.values() for path in found] == [str(files[5])]


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed.write(tmp_path / "a.hdf5", [b"picture"])
    assert packed.read(tmp_path / "a.hdf5") == [b"picture"]
    with pytest.raises(FileNotFoundError):
        packed.read(tmp_path / "b.hdf5")
    assert packed.count(tmp_path / "b.hdf5") == 0
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"equivox\[hdf5\]"):
        packed.read(tmp_path / "a.hdf5")


def test_unknown_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean `visual`"):
        data.fake("balanced_av", tmp_path / "set", visaul="hdf5")
    with pytest.raises(ValueError, match="Options of a fake `crema_d` are none"):
        data.fake("crema_d", tmp_path / "set", visual="hdf5")
    assert not (tmp_path / "set").exists()
    data.fake("balanced_av", tmp_path / "set")
    with pytest.raises(ValueError, match="`visual` should be"):
        _load("balanced_av", tmp_path / "set", visual="mp4")


def test_the_command_writes_and_checks_a_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "set")
    form = ["--option", "visual=hdf5"]
    assert main(["data", "fake", "balanced_av", "--out", root, *form]) == 0
    assert f"--root {root} --option visual=hdf5" in capsys.readouterr().out
    assert main(["data", "check", "balanced_av", "--root", root, *form]) == 0
    assert main(["data", "check", "balanced_av", "--root", root]) == FAILED


def test_one_damaged_file_is_told_and_can_be_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    data.fake("kinetics_sounds", root, visual="hdf5")
    broken, cut, *_ = sorted((root / "visual_test").iterdir())
    broken.write_bytes(b"nothing")
    cut.write_bytes(cut.read_bytes()[:500])
    report = data.check("kinetics_sounds", root, visual="hdf5")
    assert set(report.corrupt["test"]) == {str(broken), str(cut)}
    assert "whole hdf5 file" in report.corrupt["test"][str(broken)]
    ids = [e.id for e in loading.read("kinetics_sounds", 0, root, {})[1].entries["test"]]
    bad = [id_ for id_ in ids if any(path.stem in id_ for path in (broken, cut))]
    assert len(bad) == 2
    assert len(_load("kinetics_sounds", root, visual="hdf5", exclude=bad).test) == len(ids) - 2
