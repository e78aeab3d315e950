"""Previews: the raw inputs of a few samples, small enough to keep in a diagnosis and its JSON.

What a modality is, is read off the shape of a sample, without its batch axis:

| shape | preview |
| --- | --- |
| (length,) of whole numbers | text, where the data set knows the words, else the numbers |
| (length,) | a vector of at most 128 means; from 513 numbers on, a signal |
| (channels, time), 8 channels or fewer | signals, of at most 128 points each |
| (height, width), (1 or 3, height, width), either with its frames | image of at most 64 x 64 |

Anything else is a line that says its shape.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.method import Batch
from equivox.randomness import preserved_random_state

MOST_SAMPLES = 8
MOST_POINTS = 128
MOST_PIXELS = 64
LEAST_PIXELS = 24
MOST_LETTERS = 280
MOST_CHANNELS = 8
LONGEST_VECTOR = 512

Words = Callable[[str, int], str | None]
"""The text of a modality of a sample, by its number; None where it is not known to be text."""


@dataclass(frozen=True)
class Preview:
    """One modality of one sample.

    Attributes: `kind`, "image", "signal", "vector" or "text"; `content`, of an image a PNG as a
    data URI, of signals the values by channel, of a vector its values, of a text the text.
    """

    kind: str
    content: Any


def previews(loader: Iterable[Any], numbers: Sequence[int]) -> dict[int, dict[str, Preview]]:
    """Previews of the first eight of these samples, by number and modality.

    The data set of the loader is asked for texts by `words(modality, number)`, where it has that.

    :param loader: Batches of `(inputs, target, index)`.
    :param numbers: Of the samples, as in `index`.
    """
    words = getattr(getattr(loader, "dataset", None), "words", None)
    wanted = list(numbers)[:MOST_SAMPLES]
    found: dict[int, dict[str, Preview]] = {}
    with preserved_random_state(loader):
        for item in loader:
            batch = Batch.of(item)
            index = [] if batch.index is None else batch.index.tolist()
            for row in (row for row, number in enumerate(index) if number in wanted):
                found[index[row]] = _sample(batch, row, words)
            if len(found) == len(set(wanted)):
                break
    return {number: found[number] for number in wanted if number in found}


def _sample(batch: Batch, row: int, words: Words | None) -> dict[str, Preview]:
    present = batch.inputs.get("present", {})
    number = 0 if batch.index is None else int(batch.index[row])
    shown = {}
    for modality, x in batch.inputs.items():
        if modality == "present":
            continue
        said = words(modality, number) if words else None
        if modality in present and not _there(present[modality], row):
            shown[modality] = Preview("text", "absent")
        elif said is not None:
            shown[modality] = Preview("text", _cut(said))
        elif isinstance(x, Tensor):
            shown[modality] = preview(x[row])
    return shown


def _there(mask: Any, row: int) -> bool:
    return bool(mask[row]) if isinstance(mask, Tensor) and mask.ndim else bool(mask)


def preview(x: Tensor) -> Preview:
    """What a sample looks like, by its shape.

    >>> preview(torch.tensor([7, 3, 0, 0]))
    Preview(kind='text', content='tokens 7 3')
    >>> preview(torch.tensor([0.25, -1.0])).kind, preview(torch.zeros(3, 40)).kind
    ('vector', 'signal')
    >>> preview(torch.zeros(2, 3, 4, 5, 6))
    Preview(kind='text', content='2 x 3 x 4 x 5 x 6 numbers')
    """
    x = x.detach().cpu()
    if x.ndim == 1 and len(x):
        if not x.is_floating_point():
            return Preview("text", _cut(_tokens(x)))
        if len(x) > LONGEST_VECTOR:
            return Preview("signal", [_rounded(_envelope(x))])
        return Preview("vector", _rounded(_means(x)))
    if x.ndim == 2 and len(x) <= MOST_CHANNELS and x.is_floating_point():
        return Preview("signal", [_rounded(_envelope(channel)) for channel in x])
    pixels = _pixels(x)
    if pixels is None or importlib.util.find_spec("PIL") is None:
        return Preview("text", f"{' x '.join(map(str, x.shape)) or 'one'} numbers")
    return Preview("image", _png(pixels))


def _tokens(x: Tensor) -> str:
    """Token numbers, without the padding at the end."""
    kept = x.nonzero().flatten()
    last = int(kept[-1]) + 1 if len(kept) else 0
    return "tokens " + " ".join(map(str, x[:last].tolist()))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def _rounded(x: Tensor) -> list[float]:
    return [float(f"{value:.3g}") for value in x.tolist()]


def _means(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool1d(x[None].float(), min(len(x), MOST_POINTS))[0]


def _envelope(x: Tensor) -> Tensor:
    """A long signal's lowest and highest values in turn, which keep its outline."""
    if len(x) <= MOST_POINTS:
        return x
    parts = x.tensor_split(MOST_POINTS // 2)
    return torch.stack([end for part in parts for end in (part.amin(), part.amax())])


def _pixels(x: Tensor) -> Tensor | None:
    """(1 or 3, height, width): an image, the middle frame of a clip, or None."""
    if x.ndim == 4:  # (frames, channels, ...) or (channels, frames, ...)
        x = x[:, x.shape[1] // 2] if len(x) in (1, 3) else x[len(x) // 2]
    if x.ndim == 2:
        x = x[None]
    if x.ndim != 3 or 0 in x.shape:
        return None
    if len(x) not in (1, 3):
        x = x.movedim(2, 0) if x.shape[2] in (1, 3) else x[:1]
    return _smaller(x.float())


def _smaller(x: Tensor) -> Tensor:
    """Of at most 64 pixels a side, and long spectrograms not as flat as they are."""
    scale = min(1.0, MOST_PIXELS / max(x.shape[1:]))
    height, width = (max(round(n * scale), min(n, LEAST_PIXELS)) for n in x.shape[1:])
    return F.adaptive_avg_pool2d(x, (height, width))


def _png(x: Tensor) -> str:
    """A data URI; the lowest value becomes black, the highest white."""
    from PIL import Image

    low, high = x.amin(), x.amax()
    scaled = (255 * (x - low) / (high - low).clamp(min=1e-12)).round().to(torch.uint8)
    colours, height, width = scaled.shape
    raw = bytes(scaled.movedim(0, 2).flatten().tolist())
    file = io.BytesIO()
    Image.frombytes("RGB" if colours == 3 else "L", (width, height), raw).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
