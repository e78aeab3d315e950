"""NVGesture: its lines, its subjects, one window for both sensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.field import Draw
from equivox.data.sets.nvgesture import QUICK, Window, read

pytest.importorskip("PIL", reason="frames need Pillow")

LINE = "path:./Video_data/class_05/subject3_r1 color:sk_color:3:6 depth:sk_depth:4:6 label:5"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("nvgesture", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: object) -> MultimodalData:
    return data.load("nvgesture", root=root, **(QUICK | options))


def test_no_subject_is_in_two_splits(root: Path) -> None:
    entries = read(root).entries
    subjects = [{e.id.split("/")[-1] for e in entries[split]} for split in SPLITS]
    assert subjects == [{"subject2_r0", "subject3_r0"}, {"subject1_r0"}, {"subject4_r0"}]


def test_a_line_is_read_by_its_keys(root: Path) -> None:
    (root / "nvgesture_test_correct_v2.lst").write_text(LINE + "\n", encoding="utf-8")
    (entry,) = read(root).entries["test"]
    folder = root / "Video_data/class_05/subject3_r1"
    assert (entry.id, entry.target) == ("Video_data/class_05/subject3_r1", 4)
    assert entry.sources["color"] == [folder / "sk_color" / f"0000{i}.jpg" for i in (4, 5, 6)]
    assert entry.sources["depth"] == [folder / "sk_depth" / f"0000{i}.jpg" for i in (5, 6)]


def _painted(folder: Path, count: int, mode: str) -> list[Path]:
    """Frames whose brightness is their number, with a column that grows to the right."""
    from PIL import Image

    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        image = Image.new("L", (32, 32))
        image.putdata([8 * i + x for _ in range(32) for x in range(32)])
        image.convert(mode).save(path)
    return paths


def test_both_sensors_are_cut_alike_in_place_and_time(tmp_path: Path) -> None:
    sources = [_painted(tmp_path / mode, 10, mode) for mode in ("RGB", "L")]
    colour, depth = Window(28, count=4), Window(28, count=4, channels=1)
    seen = set()
    for place in range(8):
        draw = Draw(place, 1)
        a, b = (d.finish(s, draw, d.load) for d, s in zip((colour, depth), sources, strict=True))
        red = ((a[0] * 0.229 + 0.485) * 255).round().int()
        gray = ((b[0] * 0.5 + 0.5) * 255).round().int()
        assert torch.equal(red, gray)
        assert (gray[1:] - gray[:-1] == 8).all(), "frames follow one another"
        assert (gray[..., 1:] - gray[..., :-1] == 1).all(), "nothing is mirrored"
        seen.add(int(gray[0, 0, 0]))
    assert len(seen) > 2
    middle = depth.finish(sources[1], None, depth.load)[0]
    assert round((float(middle[0, 0, 0]) * 0.5 + 0.5) * 255) == 8 * 3 + 2


def test_a_gesture_shorter_than_the_window(tmp_path: Path) -> None:
    paths = _painted(tmp_path / "L", 3, "L")
    window = Window(8, count=5, channels=1)
    assert window.finish(paths, Draw(0, 0), window.load).shape == (1, 5, 8, 8)


def test_a_missing_frame_is_named(root: Path) -> None:
    (root / "Video_data/class_01/subject4_r0/sk_depth/00007.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 samples of test.*sk_depth/00007.jpg"):
        _load(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label:5", "label:26", "class_26"),
        ("label:5", "", "Lines of"),
        (":3:6", ":6:6", "Lines of"),
        ("depth:", "dept:", "Lines of"),
    ],
)
def test_bad_lines_are_named(root: Path, old: str, new: str, message: str) -> None:
    bad = LINE.replace(old, new)
    (root / "nvgesture_test_correct_v2.lst").write_text(bad, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        _load(root)


def test_two_lists_of_one_split_are_refused(root: Path) -> None:
    (root / "nvgesture_test_correct.lst").write_text(LINE, encoding="utf-8")
    with pytest.raises(ValueError, match="one list"):
        _load(root)
