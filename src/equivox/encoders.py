"""Default encoders, one for each kind of modality: vectors, images, signals and tokens.

All carry `width`, the length of the feature vector they return; those of this file end in a ReLU.
Larger ones are in `equivox.encoders_hf`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from equivox.encoders_hf import (
    ResNet18,
    SequenceTransformer,
    TextTransformer,
    TokenTransformer,
    VisionTransformer,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def _layers(dims: Sequence[int]) -> list[nn.Module]:
    """Linear layers through the given widths, each followed by a ReLU."""
    return [layer for d, e in pairwise(dims) for layer in (nn.Linear(d, e), nn.ReLU())]


class MLP(nn.Sequential):
    """Vectors, or anything flattened to one: linear layers, each followed by a ReLU.

    :param inputs: Length of the flattened input.
    :param hidden: Widths of the layers; the last one is the feature width.

    >>> import torch
    >>> MLP(12, (64, 32))(torch.zeros(5, 12)).shape
    torch.Size([5, 32])
    """

    def __init__(self, inputs: int, hidden: Sequence[int] = (64, 32)) -> None:
        super().__init__(nn.Flatten(), *_layers([inputs, *hidden]))
        self.width: int = hidden[-1]


class SmallCNN(nn.Sequential):
    """Images and spectrograms of any size: three strided convolutions and a linear layer.

    The last maps are averaged to 4 x 4 and not further, since where something is in time and
    frequency carries a spectrogram's meaning.

    :param channels: Channels of the input (batch, channels, height, width).
    :param width: The feature width.

    >>> import torch
    >>> SmallCNN(3)(torch.zeros(5, 3, 32, 48)).shape
    torch.Size([5, 32])
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        convolutions = [
            layer
            for c, d in pairwise((channels, 8, 16, 32))
            for layer in (nn.Conv2d(c, d, 3, stride=2, padding=1), nn.ReLU())
        ]
        pooled = [nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        super().__init__(*convolutions, *pooled, *_layers([32 * 16, width]))
        self.width: int = width


class CNN1D(nn.Sequential):
    """Signals of any length: three strided convolutions over time and a linear layer.

    :param channels: Channels of the input (batch, channels, time).
    :param width: The feature width.

    >>> import torch
    >>> CNN1D(3)(torch.zeros(5, 3, 64)).shape
    torch.Size([5, 32])
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        convolutions = [
            layer
            for c, d in pairwise((channels, 16, 32, 32))
            for layer in (nn.Conv1d(c, d, 5, stride=2, padding=2), nn.ReLU())
        ]
        pooled = [nn.AdaptiveAvgPool1d(4), nn.Flatten()]
        super().__init__(*convolutions, *pooled, *_layers([32 * 4, width]))
        self.width: int = width


class BagOfTokens(nn.Module):
    """Token numbers (batch, length), 0 = padding: the mean of their embeddings, and a linear layer.

    :param tokens: Size of the vocabulary.
    :param dim: Length of an embedding.
    :param width: The feature width.

    >>> import torch
    >>> bag = BagOfTokens(tokens=100)
    >>> torch.equal(bag(torch.tensor([[7, 9, 0, 0]])), bag(torch.tensor([[7, 9]])))
    True
    """

    def __init__(self, tokens: int, dim: int = 64, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(tokens, dim, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(*_layers([dim, width]))
        self.width: int = width

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch features"]:
        features: Tensor = self.layers(self.embedding(tokens))
        return features


class FrameMean(nn.Module):
    """Frames (batch, channels, frames, height, width): an image encoder of each, averaged.

    :param build: What builds the image encoder.

    >>> import torch
    >>> from functools import partial
    >>> FrameMean(partial(SmallCNN, 3))(torch.zeros(5, 3, 2, 16, 16)).shape
    torch.Size([5, 32])
    """

    def __init__(self, build: Callable[[], ImageEncoder]) -> None:
        super().__init__()
        self.image = build()
        self.width: int = self.image.width

    def forward(self, frames: Float[Tensor, "batch c t h w"]) -> Float[Tensor, "batch features"]:
        batch, count = frames.shape[0], frames.shape[2]
        images = frames.transpose(1, 2).flatten(0, 1)
        features: Tensor = self.image(images).unflatten(0, (batch, count))
        return features.mean(1)


ImageEncoder = SmallCNN | ResNet18 | VisionTransformer

Encoder = (
    MLP
    | CNN1D
    | BagOfTokens
    | FrameMean
    | SequenceTransformer
    | TokenTransformer
    | TextTransformer
    | ImageEncoder
)
