"""UCF-101: groups, and optical flow that is flipped with its frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equivox import data
from equivox.data import fakes
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.decoders import Frames
from equivox.data.decoders.flow import Flow
from equivox.data.field import Damaged, Draw
from equivox.data.media import heads
from equivox.data.sets.ucf101 import QUICK, read

pytest.importorskip("PIL", reason="frames need Pillow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data.fake("ucf101", tmp_path / "set")
    return tmp_path / "set"


def _load(root: Path, **options: object) -> MultimodalData:
    return data.load("ucf101", root=root, **(QUICK | options))


def _groups(root: Path, split: str) -> set[str]:
    return {entry.id.split("_")[2] for entry in read(root).entries[split]}


def test_no_group_is_in_two_splits(root: Path) -> None:
    assert [_groups(root, split) for split in SPLITS] == [{"g09", "g10"}, {"g08"}, {"g01"}]


def test_both_spellings_of_a_folder_are_found(root: Path) -> None:
    loaded = _load(root)
    assert loaded.classes == ("ApplyEyeMakeup", "HandstandPushups")
    assert (root / "visual" / "v_HandStandPushups_g01_c01").is_dir()
    assert (root / "flow_u" / "v_HandstandPushups_g01_c01").is_dir()
    assert [len(getattr(loaded, split)) for split in SPLITS] == [4, 2, 2]


def _seen(decoder: Frames, source: object) -> tuple[torch.Tensor, torch.Tensor]:
    """As evaluated, and in a draw that flips."""
    draw = next(d for d in (Draw(i, 0) for i in range(50)) if heads(d.generator("view")))
    return decoder.finish(source, None, decoder.load), decoder.finish(source, draw, decoder.load)


def test_flow_is_flipped_with_the_frames_and_u_changes_its_sign(tmp_path: Path) -> None:
    for side in ("rgb", "u", "v"):
        fakes.write_picture(tmp_path / side / "1.png", 1, (16, 16), len(side), side != "rgb")
    frames = Frames(16, crop=False, pattern="*.png")
    straight, flipped = _seen(frames, tmp_path / "rgb")
    assert torch.equal(flipped, straight.flip(-1))
    flow = Flow(16, crop=False, pattern="*.png")
    straight, flipped = _seen(flow, (tmp_path / "u", tmp_path / "v"))
    assert straight.shape == (2, 1, 16, 16)
    assert torch.equal(flipped[0], -straight[0].flip(-1))
    assert torch.equal(flipped[1], straight[1].flip(-1))


def test_stacked_fields_follow_one_another_u_before_v(tmp_path: Path) -> None:
    from PIL import Image

    for side, base in (("u", 0), ("v", 100)):
        (tmp_path / side).mkdir()
        for i in range(6):
            Image.new("L", (8, 8), base + i).save(tmp_path / side / f"{i}.png")
    flow = Flow(8, count=2, stack=3, pattern="*.png")
    seen, _ = _seen(flow, (tmp_path / "u", tmp_path / "v"))
    assert tuple(seen.shape) == flow.shape == (6, 2, 8, 8)
    values = ((seen[:, :, 0, 0] + 1) * 127.5).round().int().T.tolist()
    assert values == [[1, 101, 2, 102, 3, 103], [3, 103, 4, 104, 5, 105]]


def test_flows_of_unequal_length_are_damaged(root: Path) -> None:
    (root / "flow_v" / "v_ApplyEyeMakeup_g01_c01" / "frame000005.jpg").unlink()
    report = data.check("ucf101", root)
    assert "equally many fields" in str(report.corrupt["test"])
    sample = next(e for e in read(root).entries["test"] if "Apply" in e.id)
    flow = Flow(8)
    with pytest.raises(Damaged, match="5 and 4"):
        flow.finish(sample.sources["flow"], None, flow.load)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classInd.txt", "1 A\n3 B\n", "Line 2"),
        ("testlist01.txt", "v_ApplyEyeMakeup_g01_c01.avi\n", "Lines of"),
        ("testlist01.txt", "Jump/v_Jump_g01_c01.avi\n", "`Jump`"),
        ("trainlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2\n", "alike"),
    ],
)
def test_bad_lists_are_named(root: Path, file: str, text: str, message: str) -> None:
    (root / file).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        _load(root)
