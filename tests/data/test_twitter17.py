"""Twitter-17: as Twitter-15, in folders of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from equivox import data

pytest.importorskip("PIL", reason="images need Pillow")


def test_images_lie_in_either_folder(tmp_path: Path) -> None:
    data.fake("twitter17", tmp_path / "set")
    first = data.load("twitter17", root=tmp_path / "set", size=16, encoder="small").test[0]
    (tmp_path / "set" / "twitter2017_images").rename(tmp_path / "set" / "images")
    second = data.load("twitter17", root=tmp_path / "set", size=16, encoder="small")
    assert (first[0]["image"] == second.test[0][0]["image"]).all()
    assert second.classes == ("negative", "neutral", "positive")


def test_without_images_the_expected_folder_is_named(tmp_path: Path) -> None:
    data.fake("twitter17", tmp_path / "set")
    (tmp_path / "set" / "twitter2017_images").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"twitter2017_images/0_1\.jpg"):
        data.load("twitter17", root=tmp_path / "set", size=16, encoder="small")
