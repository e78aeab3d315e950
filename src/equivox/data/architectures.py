"""The default encoders of images, texts, clips and their sounds, by the options that sets share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from equivox.arguments import choice
from equivox.data.decoders import Text
from equivox.encoders import BagOfTokens, Encoder, FrameMean, SmallCNN
from equivox.encoders_hf import ResNet18, TextTransformer

Architectures = dict[str, Callable[[], Encoder]]


def of_image(encoder: str, channels: int = 3) -> Callable[[], ResNet18 | SmallCNN]:
    """ResNet-18, or for "small" three convolutions; ValueError for another name."""
    choice("encoder", encoder, ("resnet18", "small"))
    return partial(ResNet18 if encoder == "resnet18" else SmallCNN, channels)


def of_frames(encoder: str, channels: int = 3) -> Callable[[], FrameMean]:
    """That of each frame, averaged."""
    return partial(FrameMean, of_image(encoder, channels))


def of_clip(encoder: str) -> Architectures:
    """Of the spectrogram `audio` and the frames `visual`."""
    return {"audio": of_image(encoder, 1), "visual": of_frames(encoder)}


def of_text(words: Text) -> Callable[[], TextTransformer | BagOfTokens]:
    """The transformer that lies beside the tokenizer; without one, averaged embeddings."""
    if words.folder is None:
        return partial(BagOfTokens, words.vocabulary)
    return partial(TextTransformer, words.folder)


def of_image_and_text(encoder: str, words: Text) -> Architectures:
    """Of `image` and `text`."""
    return {"image": of_image(encoder), "text": of_text(words)}
