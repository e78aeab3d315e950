"""The default encoders of images and texts, by the options that sets share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from equivox.arguments import choice
from equivox.data.decoders import Text
from equivox.encoders import BagOfTokens, SmallCNN
from equivox.encoders_hf import ResNet18, TextTransformer


def of_image(encoder: str) -> Callable[[], ResNet18 | SmallCNN]:
    """ResNet-18, or for "small" three convolutions; ValueError for another name."""
    choice("encoder", encoder, ("resnet18", "small"))
    return partial(ResNet18, 3) if encoder == "resnet18" else partial(SmallCNN, 3)


def of_text(words: Text) -> Callable[[], TextTransformer | BagOfTokens]:
    """The transformer that lies beside the tokenizer; without one, averaged embeddings."""
    if words.folder is None:
        return partial(BagOfTokens, words.vocabulary)
    return partial(TextTransformer, words.folder)
