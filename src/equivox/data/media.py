"""Images and the frames of clips: read with Pillow, changed with torch.

The *standard pipeline* of the field: in training a random part of the image is resized to 224 x 224
and flipped half of the time, otherwise the whole image is resized; values in [0, 1] are then
normalised by ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.data.field import Damaged

if TYPE_CHECKING:
    from typing import BinaryIO

    from jaxtyping import Float, UInt8
    from PIL.Image import Image

ORIENTATION = 0x0112
"""Of the entry of EXIF that says how an image is turned."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def read_image(path: Path, channels: int = 3, keep: int | None = None) -> UInt8[Tensor, "c h w"]:
    """The pixels of an image file.

    :param path: Any format that Pillow reads; turned as its EXIF entry says.
    :param channels: 3 for RGB, 1 for gray.
    :param keep: Reduce a larger image so that its shorter side is this long.
    :raises Damaged: Where the file is not a whole image.
    :raises ImportError: Where Pillow is missing.
    """
    return decoded_image(path, path, channels, keep)


def decoded_image(
    file: Path | BinaryIO, where: object, channels: int = 3, keep: int | None = None
) -> UInt8[Tensor, "c h w"]:
    """The pixels of an image in a file or in memory, as `read_image`.

    :param where: What an error names it by.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Images are read with Pillow. Found none. Run `pip install equivox[image]`."
        ) from error
    try:
        with Image.open(file) as opened:
            opened.load()
            image = _turned(_in_bytes(opened).convert("RGB" if channels == 3 else "L"), opened)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises whatever the bytes make it stumble over
        raise Damaged(
            f"`{where}` should be a whole image. Found: {error}. Copy the file again."
        ) from error
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    found = pixels.view(image.height, image.width, channels).permute(2, 0, 1).contiguous()
    return found if keep is None else reduced(found, keep)


def _in_bytes(image: Image) -> Image:
    """The high bytes of a gray image of 16 bits, which Pillow would cut off at 255."""
    if not image.mode.startswith("I;16"):
        return image
    return image.convert("I").point(lambda x: x / 256).convert("L")


def _turned(image: Image, opened: Image) -> Image:
    """As the EXIF entry of the file says, where it can be read: the pixels are whole without it."""
    from PIL.Image import Transpose

    try:
        turn = opened.getexif().get(ORIENTATION)
    except Exception:
        return image
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[turn]) if turn in turns else image


def frame_files(folder: Path, pattern: str = "*.jpg") -> list[Path]:
    """The files of a folder whose names fit, whether large or small, and `.jpeg` like `.jpg`.

    Names that start with a dot are none: macOS writes `._<name>` beside a file.
    """
    if not folder.is_dir():
        return []
    names = {path: re.sub(r"\.jpeg$", ".jpg", path.name.lower()) for path in folder.iterdir()}
    return [
        path
        for path, name in names.items()
        if fnmatchcase(name, pattern.lower()) and not name.startswith(".")
    ]


def reduced(image: UInt8[Tensor, "c h w"], shorter: int) -> UInt8[Tensor, "c h w"]:
    """The image, made smaller where its shorter side is longer than `shorter`."""
    height, width = image.shape[-2:]
    if min(height, width) <= shorter:
        return image
    factor = shorter / min(height, width)
    return scaled(image, max(1, round(height * factor)), max(1, round(width * factor)))


def scaled(
    image: UInt8[Tensor, "c h w"], height: int, width: int
) -> UInt8[Tensor, "c height width"]:
    """The image at another size."""
    if image.shape[-2:] == (height, width):
        return image
    x = F.interpolate(image[None].float(), [height, width], mode="bilinear", antialias=True)[0]
    return x.round().clamp(0, 255).to(torch.uint8)


def random_box(height: int, width: int, generator: torch.Generator) -> Box:
    """A part of 8 to 100 % of the area and of 3:4 to 4:3 in shape, anywhere.

    Both uniform, the shape in its logarithm. Where ten tries do not fit into the image, its middle,
    cut to the nearest allowed shape.
    """
    for _ in range(TRIES):
        share, shape, down, right = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = height * width * (SCALE[0] + share * (SCALE[1] - SCALE[0]))
        low, high = map(math.log, RATIO)
        ratio = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w)
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def resized(
    images: UInt8[Tensor, "*batch c h w"], size: int, box: Box | None = None
) -> Float[Tensor, "*batch c size size"]:
    """Images, or one part of all of them, resized to a square; values in [0, 1].

    Bilinear with antialiasing, as Pillow does it.
    """
    if box is not None:
        top, left, height, width = box
        images = images[..., top : top + height, left : left + width]
    flat = images.float().flatten(0, -4) if images.ndim > 3 else images.float()[None]
    if flat.shape[-2:] != (size, size):
        flat = F.interpolate(flat, [size, size], mode="bilinear", antialias=True)
    return (flat / 255).clamp(0, 1).view(*images.shape[:-2], size, size)


def normalised(
    images: Float[Tensor, "*batch c h w"],
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> Float[Tensor, "*batch c h w"]:
    """Minus the mean and over the standard deviation of each channel."""
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def heads(generator: torch.Generator) -> bool:
    """A fair coin."""
    return bool(torch.rand((), generator=generator) < 0.5)


def segments(frames: int, count: int, generator: torch.Generator | None = None) -> list[int]:
    """Which `count` of the frames 0 … `frames` - 1 are taken, one from each of equal segments.

    A random one of each segment, or, without a generator, its middle. A segment is
    `frames // count` long; what is left over at the end is not looked at. Where there are fewer
    frames than are wanted, some are taken several times.

    >>> segments(10, 3), segments(2, 4)
    ([1, 4, 7], [0, 0, 1, 1])
    """
    length = frames // count
    if length == 0:
        return [i * frames // count for i in range(count)]
    if generator is None:
        return [i * length + length // 2 for i in range(count)]
    inside = torch.randint(length, (count,), generator=generator).tolist()
    return [i * length + moment for i, moment in enumerate(inside)]
