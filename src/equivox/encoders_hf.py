"""Encoders by `transformers`, and a small transformer for sequences.

Architectures of `transformers` are built from a configuration, never fetched: weights come from a
local folder. All carry `width`, the length of the feature vector they return.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def _transformers(what: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{what} is built with transformers. Found none. Run `pip install equivox[hf]`."
        ) from error
    return transformers


class ResNet18(nn.Module):
    """Images and spectrograms (batch, channels, height, width): ResNet-18, averaged over space.

    Basic blocks, as in He et al. (CVPR 2016); 512 features of a width of 64. Use `FrameMean` over
    it for the frames of a clip.

    :param channels: Of the input: 3 for images, 1 for spectrograms.
    :param folder: Weights as `transformers` saves them; None draws them.
    :param base: Width of the first stage; the last is eight times as wide.
    :raises ImportError: Where transformers is missing.
    :raises ValueError: Where the folder holds no ResNet of so many channels.
    """

    def __init__(self, channels: int = 3, folder: str | None = None, base: int = 64) -> None:
        super().__init__()
        library = _transformers("ResNet-18")
        if folder is None:
            config = library.ResNetConfig(
                num_channels=channels,
                embedding_size=base,
                hidden_sizes=[base, 2 * base, 4 * base, 8 * base],
                depths=[2, 2, 2, 2],
                layer_type="basic",
            )
            self.network = library.ResNetModel(config)
        else:
            self.network = _loaded(library, folder)
        found = self.network.config
        if found.model_type != "resnet" or found.num_channels != channels:
            raise ValueError(
                f"`{folder}` should hold a `resnet` of {channels} channels. Found a "
                f"`{found.model_type}` of {getattr(found, 'num_channels', 'no')}."
            )
        self.width: int = found.hidden_sizes[-1]

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch features"]:
        features: Tensor = self.network(images).pooler_output.flatten(1)
        return features


class TextTransformer(nn.Module):
    """Token numbers (batch, length): a transformer of a local folder, its first token's state.

    :param folder: Configuration and weights, as `transformers` saves them, such as BERT's.
    :param config: A configuration of `transformers` to draw weights for, instead of a folder.
    :raises ImportError: Where transformers is missing.
    :raises ValueError: Where not one of both is given, or the folder holds no model.
    """

    def __init__(self, folder: str | None = None, *, config: Any = None) -> None:
        super().__init__()
        self.network = _network("A text transformer", folder, config)
        self.padding: int = self.network.config.pad_token_id or 0
        self.width: int = self.network.config.hidden_size

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch features"]:
        mask = (tokens != self.padding).long()
        mask[:, 0] = 1  # a text of padding alone still has a state
        states: Tensor = self.network(input_ids=tokens, attention_mask=mask).last_hidden_state
        return states[:, 0]


class VisionTransformer(nn.Module):
    """Images (batch, 3, height, width): a vision transformer of a local folder, its class token.

    :param folder: Configuration and weights, as `transformers` saves them, such as ViT's.
    :param config: A configuration of `transformers` to draw weights for, instead of a folder.
    :raises ImportError: Where transformers is missing.
    :raises ValueError: Where not one of both is given, or the folder holds no model.
    """

    def __init__(self, folder: str | None = None, *, config: Any = None) -> None:
        super().__init__()
        self.network = _network("A vision transformer", folder, config)
        self.width: int = self.network.config.hidden_size

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch features"]:
        states: Tensor = self.network(pixel_values=images).last_hidden_state
        return states[:, 0]


def _network(what: str, folder: str | None, config: Any) -> Any:
    """The network, without the pooling layer that some have and nothing here reads."""
    if (folder is None) == (config is None):
        raise ValueError(
            f"{what} should have a `folder` of weights or a `config`. Found "
            f"{'both' if folder else 'none'}."
        )
    library = _transformers(what)
    built = library.AutoModel.from_config(config) if folder is None else _loaded(library, folder)
    if getattr(built, "pooler", None) is not None:
        built.pooler = None
    return built


def _loaded(library: Any, folder: str) -> Any:
    """Weights of a local folder; on the meta device, where sizes alone count, its architecture."""
    place = Path(folder).expanduser()
    if not (place / "config.json").is_file():
        raise ValueError(
            f"`{folder}` should be a folder with a model, of which `config.json` is a part. Found "
            "none."
        )
    try:
        if torch.get_default_device().type == "meta":
            config = library.AutoConfig.from_pretrained(place, local_files_only=True)
            return library.AutoModel.from_config(config)
        return library.AutoModel.from_pretrained(place, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"`{folder}` should hold a model and its weights as safetensors. Found: {error}"
        ) from error


class SequenceTransformer(nn.Module):
    """A sequence of vectors (batch, time, dim): a small transformer, averaged over time.

    Steps of zeros alone are padding: they are not attended to and not averaged. A sequence of
    padding alone gives zeros.

    :param inputs: Length of the vectors.
    :param width: The feature width, a multiple of `heads`.
    :param layers: Layers, each of `heads` heads and a hidden width of four times `width`.
    :param dropout: In every layer.

    >>> encoder = SequenceTransformer(5).eval()
    >>> x = torch.randn(2, 7, 5)
    >>> longer = torch.cat([x, torch.zeros(2, 3, 5)], 1)
    >>> bool(torch.allclose(encoder(x), encoder(longer), atol=1e-5))
    True
    """

    def __init__(
        self, inputs: int, width: int = 64, layers: int = 2, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"`width` should be a multiple of `heads`. Found `width = {width}`, "
                f"`heads = {heads}`."
            )
        self.projection = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.width: int = width

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch features"]:
        there = (x != 0).any(-1)
        return self.encoded(self.projection(x), there)

    def encoded(
        self, states: Float[Tensor, "batch time features"], there: Tensor
    ) -> Float[Tensor, "batch features"]:
        """Attend among the steps that are there, and average them."""
        nothing = ~there & there.any(1, keepdim=True)  # a row of padding alone would be NaN
        states = states + _positions(states.shape[1], self.width, states)
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=nothing)
        states = self.norm(states).masked_fill(~there[..., None], 0)
        return states.sum(1) / there.sum(1, keepdim=True).clamp(min=1)


class TokenTransformer(nn.Module):
    """Token numbers (batch, length), 0 = padding: embeddings and a `SequenceTransformer`.

    :param tokens: Size of the vocabulary.
    :param width: The feature width; `layers`, `heads` and `dropout` as there.
    """

    def __init__(
        self, tokens: int, width: int = 64, layers: int = 2, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width, padding_idx=0)
        self.sequence = SequenceTransformer(width, width, layers, heads, dropout)
        self.width: int = width

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch features"]:
        states = self.sequence.projection(self.embedding(tokens))
        return self.sequence.encoded(states, tokens != 0)


def _positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of the place in the sequence (time, features)."""
    rates = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10_000.0) / width))
    angles = torch.arange(length, device=like.device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(like.dtype)
