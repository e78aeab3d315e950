"""Coloured and gray digits: real images in which the colour is a shortcut to the class.

The 1,797 images of 8 x 8 (UCI optical digits, CC BY 4.0) that come with scikit-learn, twice:

- `gray`: the image in [0, 1] plus N(0, 0.25²), 1 x 8 x 8.
- `colour`: the image in one of ten colours plus N(0, 0.2²), 3 x 8 x 8. The colour is the class's
  own with probability p, otherwise any of the ten. Training: p = 0.98.

In the variant `shifted`, p = 0.5 in validation and test: who relies on the colour falls. In `iid`
p = 0.98 everywhere: the damage is then in the gray encoder alone. The training data are the same.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from equivox.data.base import MultimodalData, Recipe, divide, draws
from equivox.encoders import MLP
from equivox.errors import nearest

# The probability of the class's own colour in validation and test.
VARIANTS = {"shifted": 0.5, "iid": 0.98}

PALETTE = (
    (1.0, 0.0, 0.0),  # red
    (0.0, 1.0, 0.0),  # green
    (0.0, 0.0, 1.0),  # blue
    (1.0, 1.0, 0.0),  # yellow
    (1.0, 0.0, 1.0),  # magenta
    (0.0, 1.0, 1.0),  # cyan
    (1.0, 0.5, 0.0),  # orange
    (0.5, 0.0, 1.0),  # violet
    (0.0, 0.5, 0.5),  # teal
    (0.6, 0.6, 0.6),  # gray
)


def digits(name: str, seed: int, *, variant: str = "shifted") -> MultimodalData:
    """Gray and coloured digits, split 60 / 10 / 30 % by a fixed permutation.

    :param variant: "shifted" or "iid": how often colour and class agree in validation and test.
    :raises ValueError: For any other variant.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"`variant` should be one of {tuple(VARIANTS)}. Found `{variant!r}`. "
            f"{nearest(str(variant), VARIANTS)}"
        )
    generator = draws(seed)
    image, target = _shuffled(generator)
    train, validation = int(0.6 * len(target)), int(0.1 * len(target))
    agreement = torch.full((len(target),), VARIANTS[variant])
    agreement[:train] = 0.98
    colour = torch.tensor(PALETTE)[_colours(target, agreement, generator)][:, :, None, None]
    inputs = {
        "gray": image + 0.25 * torch.randn(image.shape, generator=generator),
        "colour": image * colour + 0.2 * torch.randn((len(image), 3, 8, 8), generator=generator),
    }
    return MultimodalData(
        name,
        {"seed": seed, "variant": variant},
        *divide(inputs, target, train, validation),
        architectures={"gray": partial(MLP, 64), "colour": partial(MLP, 192)},
        recipe=Recipe(batch_size=32),
        classes=tuple("0123456789"),
    )


def _shuffled(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (samples, 1, 8, 8) in [0, 1] and their digits, in random order."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "`digits` come with scikit-learn. Found none. Run `pip install equivox[bench]`."
        ) from error
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=generator)
    images = torch.as_tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    return images[order], torch.as_tensor(bunch.target, dtype=torch.int64)[order]


def _colours(target: Tensor, agreement: Tensor, generator: torch.Generator) -> Tensor:
    """The class's own colour with the given probability, otherwise any of the ten."""
    own = torch.rand(len(target), generator=generator) < agreement
    return torch.where(own, target, torch.randint(10, target.shape, generator=generator))
