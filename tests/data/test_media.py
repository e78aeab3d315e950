"""Images and frames: the standard pipeline against Pillow and by hand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox.data import fakes, media
from equivox.data.decoders import Frames, Image
from equivox.data.field import Damaged, Draw

PIL = pytest.importorskip("PIL.Image", reason="images need Pillow")
ImageOps = pytest.importorskip("PIL.ImageOps", reason="images need Pillow")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    fakes.write_picture(tmp_path / "a.png", 3, (48, 64))
    return tmp_path / "a.png"


@pytest.mark.parametrize("size", [24, 80])
def test_resizing_is_that_of_pillow(picture: Path, size: int) -> None:
    expected = np.asarray(PIL.open(picture).resize((size, size), PIL.Resampling.BILINEAR))
    found = media.resized(media.read_image(picture), size).permute(1, 2, 0) * 255
    assert np.abs(found.numpy() - expected).max() < 1.01  # Pillow rounds twice


def test_a_part_is_cut_before_it_is_resized(picture: Path) -> None:
    image = media.read_image(picture)
    box = media.Box(5, 7, 20, 30)
    found = media.resized(image, 16, box)
    assert torch.equal(found, media.resized(image[:, 5:25, 7:37], 16))
    both = media.resized(torch.stack([image, image]), 16, box)
    assert both.shape == (2, 3, 16, 16)
    assert torch.allclose(both[1], found, atol=1e-6)


def test_random_parts_keep_to_their_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = [media.random_box(120, 160, generator) for _ in range(400)]
    for top, left, height, width in boxes:
        assert 0 <= top <= 120 - height and 0 <= left <= 160 - width
        assert 0.07 <= height * width / (120 * 160) <= 1
        assert 0.7 <= width / height <= 1.4
    areas = torch.tensor([b.height * b.width / 19_200 for b in boxes])
    assert 0.4 < areas.mean() < 0.6  # uniform in [0.08, 1], less what did not fit
    assert len(set(boxes)) > 390


def test_an_image_too_long_for_any_part_is_cut_to_its_middle() -> None:
    assert media.random_box(10, 1000, torch.Generator().manual_seed(0)) == (0, 493, 10, 13)


def test_normalisation_is_imagenets() -> None:
    found = media.normalised(torch.ones(3, 2, 2))
    assert torch.allclose(
        found[:, 0, 0], torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
    )


def test_evaluation_is_the_whole_image(picture: Path) -> None:
    decoder = Image(size=16)
    expected = media.normalised(media.resized(media.read_image(picture), 16))
    assert torch.equal(decoder.finish(picture, None, decoder.load), expected)
    gray = Image(size=16, channels=1)
    x = gray.finish(picture, None, gray.load)
    assert x.shape == (1, 16, 16) and x.min() >= -1 and x.max() <= 1


def test_half_of_the_images_are_flipped(picture: Path) -> None:
    decoder = Image(size=16, crop=False)
    plain = decoder.finish(picture, None, decoder.load)
    seen = [decoder.finish(picture, Draw(i, 0), decoder.load) for i in range(100)]
    flipped = [torch.equal(x, plain.flip(-1)) for x in seen]
    assert all(flip or torch.equal(x, plain) for flip, x in zip(flipped, seen, strict=True))
    assert 30 < sum(flipped) < 70
    never = Image(size=16, crop=False, flip=False)
    assert torch.equal(never.finish(picture, Draw(0, 0), never.load), plain)


def test_a_smaller_copy_is_kept(picture: Path) -> None:
    assert media.read_image(picture, keep=24).shape == (3, 24, 32)
    assert media.read_image(picture, keep=480).shape == (3, 48, 64)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.8])
def test_a_damaged_image_is_named(tmp_path: Path, ending: str, part: float) -> None:
    path = tmp_path / f"a.{ending}"
    fakes.write_picture(path, 3, (64, 64))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(Damaged, match=rf"a\.{ending}` should be a whole image"):
        media.read_image(path)


@pytest.mark.parametrize("turn", range(10))
def test_an_image_is_turned_as_its_entry_says(tmp_path: Path, turn: int) -> None:
    image = PIL.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    entry = PIL.Exif()
    entry[media.ORIENTATION] = turn
    image.save(tmp_path / "a.png", exif=entry)
    expected = np.asarray(ImageOps.exif_transpose(PIL.open(tmp_path / "a.png")))
    assert np.array_equal(media.read_image(tmp_path / "a.png").permute(1, 2, 0), expected)


@pytest.mark.parametrize("error", [AttributeError, struct.error])
def test_an_odd_entry_is_passed_over(
    picture: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = media.read_image(picture)

    def odd(_: Any) -> None:
        raise error("odd")

    monkeypatch.setattr(PIL.Image, "getexif", odd)
    assert torch.equal(media.read_image(picture), expected)
    monkeypatch.setattr(PIL.Image, "load", odd)
    with pytest.raises(Damaged, match=r"a\.png` should be a whole image. Found: odd"):
        media.read_image(picture)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_an_image_of_16_bits_keeps_its_high_bytes(tmp_path: Path, ending: str) -> None:
    values = np.array([[0, 255, 256, 32_768, 65_535]], dtype=np.uint16)
    PIL.fromarray(values).save(tmp_path / f"a.{ending}")
    for channels in (1, 3):
        found = media.read_image(tmp_path / f"a.{ending}", channels)
        assert found[-1].tolist() == [[0, 0, 1, 128, 255]]


def test_a_missing_image_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        media.read_image(tmp_path / "a.jpg")
    assert Image().missing(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]


# ── frames ──────────────────────────────────────────────────────────────────────────────────────


def test_frames_are_drawn_from_equal_segments() -> None:
    assert media.segments(10, 3) == [1, 4, 7]
    assert media.segments(3, 3) == [0, 1, 2]
    assert media.segments(2, 3) == [0, 0, 1]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([media.segments(10, 3, generator) for _ in range(200)])
    for place in range(3):  # each frame of a segment, and no other
        assert set(drawn[:, place].tolist()) == set(range(3 * place, 3 * place + 3))


def test_frames_come_in_order_and_from_where_they_were_drawn(tmp_path: Path) -> None:
    for i, value in enumerate((10, 60, 110, 160, 210, 250), start=1):
        PIL.new("RGB", (8, 8), (value,) * 3).save(tmp_path / f"{i:05d}.png")
    decoder = Frames(size=8, count=3, pattern="*.png")
    clip = decoder.finish(tmp_path, None, decoder.load)
    assert clip.shape == decoder.shape == (3, 3, 8, 8)
    values = (clip[0, :, 0, 0] * 0.229 + 0.485) * 255
    assert torch.allclose(values, torch.tensor([60.0, 160.0, 250.0]), atol=0.5)
    seen = [decoder.finish(tmp_path, Draw(i, 0), decoder.load)[0, :, 0, 0] for i in range(30)]
    assert len({tuple(x.tolist()) for x in seen}) > 4
    assert all((x.diff() > 0).all() for x in seen)


def test_one_part_and_one_flip_serve_all_frames(picture: Path) -> None:
    decoder = Frames(size=16, count=2)
    for i in range(10):
        clip = decoder.finish([picture, picture], Draw(i, 0), decoder.load)
        assert torch.equal(clip[:, 0], clip[:, 1])


def test_frames_of_other_sizes_are_brought_to_the_first(tmp_path: Path) -> None:
    fakes.write_picture(tmp_path / "1.jpg", 3, (20, 30))
    fakes.write_picture(tmp_path / "2.jpg", 3, (40, 30))
    decoder = Frames(size=16, count=2)
    assert decoder.finish(tmp_path, Draw(0, 0), decoder.load).shape == (3, 2, 16, 16)


def test_a_clip_without_frames_is_missing(tmp_path: Path) -> None:
    decoder = Frames()
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert decoder.missing(folder) == [folder]
        with pytest.raises(Damaged, match=r"should hold frames `\*\.jpg`"):
            decoder.finish(folder, None, decoder.load)


def test_frames_may_have_other_endings_and_hidden_files_are_none(tmp_path: Path) -> None:
    names = ("1.jpg", "2.JPG", "3.jpeg", "10.JPEG")
    for place, name in enumerate(names):
        fakes.write_picture(tmp_path / "a.jpg", place)
        (tmp_path / "a.jpg").rename(tmp_path / name)
    for name in ("._1.jpg", "notes.txt", "4.jpg.part"):
        (tmp_path / name).write_bytes(b"none")
    decoder = Frames(size=16, count=4)
    assert [path.name for path in decoder.parts(tmp_path)] == list(names)
    assert decoder.missing(tmp_path) == []
    assert decoder.finish(tmp_path, None, decoder.load).shape == (3, 4, 16, 16)


def test_one_colour_is_remarked(tmp_path: Path) -> None:
    PIL.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "a.png")
    assert Image().remark(Image().load(tmp_path / "a.png")) == "one colour"
    fakes.write_picture(tmp_path / "b.png", 3)
    assert Image().remark(Image().load(tmp_path / "b.png")) == ""
