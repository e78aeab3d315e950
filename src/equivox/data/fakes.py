"""Tiny files with real encodings, of which fake data sets are made.

Their content depends on the class, so that something can be learned from them.
"""

from __future__ import annotations

import io
import math
import struct
import wave
from pathlib import Path

import torch


def write_tone(
    path: Path, pitch: float, seconds: float = 1.0, rate: int = 16_000, seed: int = 0
) -> None:
    """A wav file, 16 bits, of a tone of `pitch` Hz in a little noise."""
    draw = torch.Generator().manual_seed(seed)
    moments = torch.arange(int(seconds * rate)) / rate
    sound = 0.5 * torch.sin(2 * math.pi * pitch * moments)
    sound = sound + 0.05 * torch.randn(len(moments), generator=draw)
    whole = (sound.clamp(-1, 1) * 32767).to(torch.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{len(whole)}h", *whole.tolist()))


def write_picture(
    path: Path, number: int, size: tuple[int, int] = (32, 32), seed: int = 0, gray: bool = False
) -> None:
    """An image file of noise in a colour of its own for each `number`; the ending is the format.

    :param size: Height and width.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(number, size, seed, gray, path.suffix))


def picture(
    number: int,
    size: tuple[int, int] = (32, 32),
    seed: int = 0,
    gray: bool = False,
    ending: str = ".jpg",
) -> bytes:
    """What such a file holds."""
    from PIL import Image

    draw = torch.Generator().manual_seed(seed)
    colour = torch.tensor([number * 97 % 256, number * 57 % 256, number * 31 % 256])
    channels = 1 if gray else 3
    noise = torch.randint(-40, 40, (*size, channels), generator=draw)
    pixels = (colour[:channels] + noise).clamp(0, 255).to(torch.uint8)
    file = io.BytesIO()
    kind = Image.registered_extensions()[ending]
    Image.fromarray((pixels[..., 0] if gray else pixels).numpy()).save(file, kind)
    return file.getvalue()


def write_frames(
    folder: Path,
    number: int,
    count: int = 3,
    name: str = "{:05d}.jpg",
    size: tuple[int, int] = (32, 32),
    seed: int = 0,
    gray: bool = False,
) -> None:
    """A folder of `count` frames, numbered from 1 as `name` says."""
    for i in range(1, count + 1):
        write_picture(folder / name.format(i), number, size, seed * 1000 + i, gray)


def new_folder(out: Path) -> None:
    """Make the folder of a fake set; FileExistsError where something lies there already."""
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(
            f"A fake set should be written to a new or empty folder. Found files in `{out}`."
        )
    out.mkdir(parents=True, exist_ok=True)
