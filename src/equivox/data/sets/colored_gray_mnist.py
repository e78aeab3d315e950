"""Coloured-and-gray MNIST: a digit in gray and in a colour that tells it in training alone.

Layout, the four idx files of MNIST, plain or in gzip:

    train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte

Both modalities show the same image. Its colour is that of its class in training and, by default,
any of the ten in validation and test, in both cases with a little noise of the colour. The colours
are drawn by the seed of the set: nothing but MNIST is needed. 55,000 + 5,000 + 10,000 images; every
twelfth training image is held out for validation, where colours are drawn as in the test.

The published form, `mnist_10color_jitter_var_0.030.npy`, is a pickle in another file format and is
not read. MNIST: CC BY-SA 3.0. Source: LeCun et al., Proceedings of the IEEE 1998; Kim et al., CVPR
2019. Traps: an image that is shuffled in one modality alone; validation whose colours tell the
class, which selects the model that relies on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivox.arguments import number
from equivox.data import fakes, mnist
from equivox.data.decoders import InMemory
from equivox.data.digits import PALETTE
from equivox.data.field import Contents, Draw, Entry, Load
from equivox.data.media import normalised
from equivox.data.mnist import Digits, Pixels
from equivox.encoders import SmallCNN

CLASSES = mnist.CLASSES
HELD_OUT = 12

QUICK: dict[str, object] = {}


@dataclass(frozen=True)
class Coloured(InMemory):
    """A gray image in a colour as (3, 28, 28), normalised. The source is both.

    The rest says how `read` has drawn the colours, see there.
    """

    shape: tuple[int, ...] = (3, 28, 28)
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2023, 0.1994, 0.2010)
    train_agreement: float = 1.0
    agreement: float = 0.0
    variance: float = 0.03

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        image, colour = source
        return normalised(image[None] / 255 * colour[:, None, None], self.mean, self.std)


def read(
    root: Path,
    *,
    train_agreement: float = 1.0,
    agreement: float = 0.0,
    variance: float = 0.03,
    seed: int = 0,
) -> Contents:
    """Coloured-and-gray MNIST from the files in `root`.

    :param train_agreement: The probability that a training image has its class's own colour;
        otherwise it has any of the ten.
    :param agreement: The same in validation and test.
    :param variance: Of the noise on the red, green and blue of a colour: 0.02 to 0.05.
    :param seed: What the colours are drawn by.
    """
    number("train_agreement", train_agreement, least=0, most=1)
    number("agreement", agreement, least=0, most=1)
    number("variance", variance, least=0)
    files = mnist.read_mnist(root)
    draw = torch.Generator().manual_seed(seed)
    held = torch.arange(len(files["train"].target)) % HELD_OUT == 0
    chances = {
        "train": torch.where(held, agreement, train_agreement),
        "test": torch.full((len(files["test"].target),), agreement),
    }
    found = {
        part: _entries(part, digits, _colours(digits.target, chances[part], variance, draw))
        for part, digits in files.items()
    }
    train, places = found["train"], held.tolist()
    coloured = Coloured(train_agreement=train_agreement, agreement=agreement, variance=variance)
    return Contents(
        entries={
            "train": [e for e, out in zip(train, places, strict=True) if not out],
            "validation": [e for e, out in zip(train, places, strict=True) if out],
            "test": found["test"],
        },
        decoders={"gray": Pixels(), "colour": coloured},
        architectures={"gray": partial(SmallCNN, 1), "colour": partial(SmallCNN, 3)},
        classes=CLASSES,
    )


def _entries(part: str, digits: Digits, colours: Tensor) -> list[Entry]:
    rows = zip(digits.images, digits.target.tolist(), colours, strict=True)
    return [
        Entry(f"{part}/{i:05d}", digit, {"gray": image, "colour": (image, colour)})
        for i, (image, digit, colour) in enumerate(rows)
    ]


def _colours(target: Tensor, chance: Tensor, variance: float, draw: torch.Generator) -> Tensor:
    """The class's own colour with a probability, otherwise any of the ten, with noise."""
    own = torch.rand(len(target), generator=draw) < chance
    number = torch.where(own, target, torch.randint(10, target.shape, generator=draw))
    noise = variance**0.5 * torch.randn((len(target), 3), generator=draw)
    return (torch.tensor(PALETTE)[number] + noise).clamp(0, 1)


def fake(out: Path, seed: int = 0) -> None:
    """40 training and 10 test images, in gzip."""
    fakes.new_folder(out)
    mnist.write_fake(out, 40, 10, seed, packed=True)
