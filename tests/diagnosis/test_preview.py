"""Previews: what is kept of a sample, by its shape, and how much of it."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from equivox import data
from equivox.diagnosis.preview import MOST_LETTERS, MOST_PIXELS, Preview, preview, previews


def image(found: Preview) -> Any:
    from PIL import Image

    assert found.kind == "image"
    head, _, packed = found.content.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(packed)))


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [
        ((3, 8, 6), (6, 8), "RGB"),
        ((1, 8, 6), (6, 8), "L"),
        ((8, 6, 3), (6, 8), "RGB"),
        ((20, 12), (12, 20), "L"),
        ((10, 12, 14), (14, 12), "L"),
        ((5, 3, 8, 6), (6, 8), "RGB"),
        ((3, 5, 8, 6), (6, 8), "RGB"),
        ((3, 224, 160), (46, 64), "RGB"),
        ((1, 128, 1000), (64, 24), "L"),
    ],
)
def test_images_of_all_layouts(shape: tuple[int, ...], size: tuple[int, int], mode: str) -> None:
    drawn = image(preview(torch.rand(shape, generator=torch.Generator().manual_seed(0))))
    assert (drawn.size, drawn.mode) == (size, mode)
    assert max(drawn.size) <= MOST_PIXELS


def test_an_image_reaches_from_black_to_white_with_its_pixels_in_place() -> None:
    x = torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]])
    assert list(image(preview(x)).tobytes()) == [0, 128, 191, 255]
    colours = torch.tensor([0.0, 1.0, 0.5]).view(3, 1, 1)
    assert image(preview(colours)).tobytes() == bytes([0, 255, 128])


def test_an_image_of_one_value_is_black() -> None:
    assert image(preview(torch.full((1, 2, 2), 7.0))).tobytes() == bytes(4)


def test_signals_keep_their_peaks() -> None:
    x = torch.zeros(2, 5000)
    x[1, 1234] = 9.0
    found = preview(x)
    assert found.kind == "signal" and [len(channel) for channel in found.content] == [128, 128]
    assert max(found.content[0]) == 0 and max(found.content[1]) == 9
    assert preview(torch.arange(3.0)[None]).content == [[0.0, 1.0, 2.0]]


def test_a_long_vector_is_a_waveform_and_a_short_one_is_bars() -> None:
    assert preview(torch.zeros(8000)).kind == "signal"
    assert preview(torch.tensor([1.23456, -2.0])) == Preview("vector", [1.23, -2.0])
    assert len(preview(torch.arange(300.0)).content) == 128


def test_tokens_are_numbers_without_the_padding() -> None:
    assert preview(torch.tensor([5, 0, 7, 0, 0])).content == "tokens 5 0 7"
    long = preview(torch.full((1000,), 12345)).content
    assert len(long) == MOST_LETTERS and long.endswith("…")


def test_what_cannot_be_drawn_says_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preview(torch.zeros(2, 2, 2, 2, 2)) == Preview("text", "2 x 2 x 2 x 2 x 2 numbers")
    assert preview(torch.tensor(1.0)).content == "one numbers"
    assert preview(torch.zeros(0)).content == "0 numbers"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert preview(torch.zeros(3, 8, 8)).content == "3 x 8 x 8 numbers"


# ── of a loader ─────────────────────────────────────────────────────────────────────────────────


class Data:
    """A data set with texts of one modality."""

    def words(self, modality: str, number: int) -> str | None:
        return f"text {number}" if modality == "b" else None


class Loader:
    def __init__(self, items: list[Any], dataset: Any = None) -> None:
        self.items, self.dataset = items, dataset
        self.read = 0

    def __iter__(self) -> Any:
        for item in self.items:
            self.read += 1
            yield item


def batch(numbers: list[int], present: Tensor | None = None) -> tuple[Any, ...]:
    index = torch.tensor(numbers)
    inputs: dict[str, Any] = {"a": index[:, None].float(), "b": index[:, None]}
    if present is not None:
        inputs["present"] = {"a": present}
    return inputs, index, index


def test_samples_are_found_by_number_in_the_order_asked_for() -> None:
    loader = Loader([batch([4, 2]), batch([9, 1]), batch([3, 5])], Data())
    found = previews(loader, [9, 2, 77])
    assert list(found) == [9, 2]
    assert found[9] == {"a": Preview("vector", [9.0]), "b": Preview("text", "text 9")}


def test_reading_ends_with_the_last_one_that_is_wanted() -> None:
    loader = Loader([batch([4, 2]), batch([9, 1]), batch([3, 5])])
    assert list(previews(loader, [2, 9])) == [2, 9] and loader.read == 2


def test_tokens_where_nobody_knows_the_words() -> None:
    assert previews(Loader([batch([4])]), [4])[4]["b"].content == "tokens 4"


def test_an_absent_modality_is_not_shown() -> None:
    loader = Loader([batch([4, 2], torch.tensor([True, False]))])
    found = previews(loader, [4, 2])
    assert found[4]["a"].kind == "vector" and found[2]["a"] == Preview("text", "absent")
    assert set(found[2]) == {"a", "b"}


def test_they_stay_small() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "photo": torch.rand(30, 3, 300, 400, generator=generator),
        "sound": torch.rand(30, 16000, generator=generator),
    }
    index = torch.arange(30)
    found = previews([(inputs, index, index)], index.tolist())
    plain = {n: {m: asdict(x) for m, x in shown.items()} for n, shown in found.items()}
    assert len(found) == 8 and len(json.dumps(plain)) < 8 * 14_000


# ── of data sets ────────────────────────────────────────────────────────────────────────────────


def test_samples_say_their_words_by_a_vocabulary() -> None:
    tokens = {"text": torch.tensor([[2, 1, 0], [0, 0, 0]]), "image": torch.zeros(2, 1, 2, 2)}
    samples = data.Samples(tokens, torch.tensor([0, 1]), {"text": ["<pad>", "cat", "black"]})
    assert samples.words("text", 0) == "black cat" and samples.words("text", 1) == ""
    assert samples.only("text").words("text", 0) == "black cat"
    assert samples.words("image", 0) is None


@pytest.mark.parametrize("name", ["food101", "mvsa"])
def test_sets_in_files_say_the_text_that_they_read(name: str, tmp_path: Path) -> None:
    data.fake(name, tmp_path / "root")
    held = data.load(name, root=str(tmp_path / "root"), size=32, encoder="small")
    said = held.test.words("text", 0)
    assert said and held.test.words("image", 0) is None
    found = previews(held.loader("test", 2), [0])
    assert found[0]["text"] == Preview("text", said) and found[0]["image"].kind == "image"
