"""`equivox data`: what is found in damaged sets, and what is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from equivox import data
from equivox.cli import main
from equivox.console import FAILED, REFUSED
from equivox.data.pickles import read_pickle, write_pickle

pytest.importorskip("PIL", reason="images need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("crema_d", tmp_path / "set")
    return tmp_path / "set"


def test_everything_that_is_wrong_is_named(root: Path) -> None:
    sounds = sorted((root / "AudioWAV").iterdir())
    frames = sorted((root / "Image-01-FPS").iterdir())
    sounds[0].unlink()
    shutil.rmtree(frames[1])
    sounds[2].write_bytes(b"nothing")
    broken = frames[3] / "00002.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    shutil.copy(sounds[4], sounds[5])
    for frame in frames[6].iterdir():
        frame.unlink()
    report = data.check("crema_d", root)
    assert not report.whole
    assert report.missing["train"] == sorted(map(str, (sounds[0], frames[1], frames[6])))
    assert set(report.corrupt["train"]) == {str(sounds[2]), str(broken)}
    assert "whole image" in report.corrupt["train"][str(broken)]
    assert report.alike == [[str(sounds[4]), str(sounds[5])]]
    assert report.samples == {"train": 12, "validation": 4, "test": 4}
    assert report.balance["train"]["NEU"] == 2


def test_suspicious_and_repeated_samples_are_told(root: Path) -> None:
    sound = min((root / "AudioWAV").iterdir())
    whole = sound.read_bytes()
    sound.write_bytes(whole[:44] + b"\0" * (len(whole) - 44))
    text = (root / "test.csv").read_text()
    (root / "test.csv").write_text(text + text.splitlines()[0] + "\n")
    report = data.check("crema_d", root)
    assert report.remarks == {str(sound): "silent"}
    assert list(report.repeated.values()) == [2] and not report.whole


def test_the_command_tells_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "crema_d" in out and "latent2" in out
    assert main(["data", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name": "latent2", "kind": "here", "about": ""} in found


def test_the_command_fakes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "food"
    assert main(["data", "fake", "food101", "--out", str(root)]) == 0
    assert main(["data", "check", "food101", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "Nothing is missing." in out and "apple_pie" in out
    (root / "images/test/sushi/sushi_0.jpg").unlink()
    assert main(["data", "check", "food101", "--root", str(root)]) == FAILED
    out = capsys.readouterr().out
    assert "Missing: 1" in out and "sushi_0.jpg" in out and "not whole" in out
    assert main(["data", "check", "food101", "--root", str(root), "--json"]) == FAILED
    report = json.loads(capsys.readouterr().out)
    assert report["missing"]["test"] == [str(root / "images/test/sushi/sushi_0.jpg")]
    assert report["whole"] is False


def test_the_command_tells_how_many_numbers_were_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.fake("mosi", tmp_path / "set")
    assert main(["data", "check", "mosi", "--root", str(tmp_path / "set")]) == 0
    audio = next(x for x in capsys.readouterr().out.splitlines() if x.strip().startswith("audio"))
    assert "replaced=3" in audio  # one `-inf` a split


def test_the_command_refuses_clearly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "food10", "--root", str(tmp_path)]) == REFUSED
    assert "Did you mean `food101`" in capsys.readouterr().err
    assert main(["data", "check", "crema_d", "--root", str(tmp_path / "no")]) == FAILED
    assert "should be a folder" in capsys.readouterr().err
    root = tmp_path / "set"
    assert main(["data", "fake", "crema_d", "--out", str(root)]) == 0
    assert main(["data", "fake", "crema_d", "--out", str(root)]) == FAILED
    assert "new or empty folder" in capsys.readouterr().err
    assert main(["data", "check", "crema_d", "--root", str(root), "--option", "fps=2"]) == FAILED
    words = ["data", "check", "crema_d", "--root", str(root), "--option", "fsp=2"]
    assert main(words) == REFUSED
    assert "Did you mean `fps`" in capsys.readouterr().err


def test_the_command_knows_the_options_of_all_sets(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds = sorted((root / "AudioWAV").iterdir())[:2]
    for sound in sounds:
        sound.write_bytes(b"nothing")
    words = ["data", "check", "crema_d", "--option", f"root={root}", "--json"]
    for option in ("tolerance=0.5", "workers=2", "cache=there", "preprocessing=v0-0"):
        words += ["--option", option]
    assert main(words) == FAILED
    ids = ",".join(sound.stem for sound in sounds)
    capsys.readouterr()
    assert main([*words, "--option", f"exclude={ids}"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["left_out"]["excluded"] == ids.split(",")
    assert main([*words, "--option", "exclude=nobody"]) == REFUSED
    assert "`exclude` should name samples. Found `nobody`" in capsys.readouterr().err


def test_silent_features_and_empty_texts_are_remarked(tmp_path: Path) -> None:
    data.fake("mosi", tmp_path / "mosi")
    path = tmp_path / "mosi" / "mosi_data.pkl"
    content = read_pickle(path)
    content["test"]["audio"][1] = 0
    write_pickle(path, content)
    report = data.check("mosi", tmp_path / "mosi")
    assert report.whole and report.remarks == {"test0_1.0_2.0 audio": "zeros alone"}
    data.fake("food101", tmp_path / "food")
    titles = tmp_path / "food" / "texts" / "test_titles.csv"
    titles.write_text(titles.read_text().replace("RT Best sushi, no. 0 #food", "#", 1))
    remarks = data.check("food101", tmp_path / "food").remarks
    assert remarks == {"test/sushi_0.jpg text": "zeros alone"}
