"""Encoders of `transformers` and for sequences: shapes, padding, weights of a folder."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox.encoders import FrameMean, SmallCNN
from equivox.encoders_hf import (
    ResNet18,
    SequenceTransformer,
    TextTransformer,
    TokenTransformer,
    VisionTransformer,
)


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="the extra `hf` is not installed")


def _bert(transformers: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )


def _vit(transformers: Any) -> Any:
    return transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
    )


@pytest.mark.usefixtures("transformers")
def test_resnet_18_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        encoder = ResNet18(3)
    weights = {name: p.numel() for name, p in encoder.named_parameters()}
    assert sum(weights.values()) == 11_176_512  # torchvision's 11,689,512 less its classifier
    assert encoder.width == 512


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.usefixtures("transformers")
def test_resnet_18_takes_images_and_spectrograms(channels: int) -> None:
    torch.manual_seed(0)
    encoder = ResNet18(channels, base=8)
    features = encoder(torch.randn(2, channels, 65, 47))
    assert features.shape == (2, encoder.width) == (2, 64)
    features.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.usefixtures("transformers")
def test_weights_come_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = ResNet18(1, base=8).eval()
    first.network.save_pretrained(tmp_path)
    again = ResNet18(1, str(tmp_path)).eval()
    x = torch.randn(2, 1, 40, 40)
    assert torch.equal(first(x), again(x))
    with pytest.raises(ValueError, match=r"`resnet` of 3 channels\. Found a `resnet` of 1"):
        ResNet18(3, str(tmp_path))
    with torch.device("meta"):
        assert ResNet18(1, str(tmp_path)).width == 64
    with pytest.raises(ValueError, match=r"`config\.json`"):
        ResNet18(3, str(tmp_path / "nowhere"))


def test_text_and_vision_transformers_load_what_they_saved(
    transformers: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokens, images = torch.randint(5, 30, (2, 7)), torch.randn(2, 3, 16, 16)
    for kind, config, x in (
        (TextTransformer, _bert(transformers), tokens),
        (VisionTransformer, _vit(transformers), images),
    ):
        first = kind(config=config).eval()
        assert first(x).shape == (2, first.width) == (2, 16)
        folder = tmp_path / kind.__name__
        first.network.save_pretrained(folder)
        assert torch.equal(kind(str(folder)).eval()(x), first(x))
        assert all("pooler" not in name for name, _ in first.named_parameters())
        with pytest.raises(ValueError, match=r"`resnet` of 3 channels. Found a `(bert|vit)`"):
            ResNet18(3, str(folder))
        with torch.device("meta"):
            assert kind(str(folder)).width == 16
        with pytest.raises(ValueError, match="Found none"):
            kind()
        with pytest.raises(ValueError, match="Found both"):
            kind(str(folder), config=config)


def test_padding_of_texts_does_not_count(transformers: Any) -> None:
    torch.manual_seed(0)
    encoder = TextTransformer(config=_bert(transformers)).eval()
    short, long = torch.tensor([[2, 7, 9]]), torch.tensor([[2, 7, 9, 0, 0]])
    assert torch.allclose(encoder(short), encoder(long), atol=1e-6)
    assert encoder(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for build in (ResNet18, partial(TextTransformer, config=0), partial(VisionTransformer, "x")):
        with pytest.raises(ImportError, match=r"equivox\[hf\]"):
            build()


# ── sequences and frames ────────────────────────────────────────────────────────────────────────


def test_sequences_of_vectors_and_tokens() -> None:
    torch.manual_seed(0)
    vectors, tokens = SequenceTransformer(5, width=32).eval(), TokenTransformer(20, width=32).eval()
    x, t = torch.randn(3, 6, 5), torch.randint(1, 20, (3, 6))
    longer = torch.cat([x, torch.zeros(3, 4, 5)], 1)
    padded = torch.cat([t, torch.zeros(3, 4, dtype=torch.long)], 1)
    for encoder, short, long in ((vectors, x, longer), (tokens, t, padded)):
        assert encoder(short).shape == (3, encoder.width) == (3, 32)
        assert torch.allclose(encoder(short), encoder(long), atol=1e-5)
        assert not torch.allclose(encoder(short), encoder(short.flip(1)), atol=1e-3)  # in order
        nothing = encoder(torch.zeros_like(short))
        assert torch.equal(nothing, torch.zeros(3, 32))
    with pytest.raises(ValueError, match="multiple of `heads`"):
        SequenceTransformer(5, width=30)


@pytest.mark.parametrize("build", [partial(SequenceTransformer, 5), partial(TokenTransformer, 9)])
def test_every_parameter_of_a_sequence_encoder_learns(build: Any) -> None:
    torch.manual_seed(0)
    encoder = build()
    x = (
        torch.randn(4, 6, 5)
        if isinstance(encoder, SequenceTransformer)
        else torch.ones(4, 6).long()
    )
    encoder(x).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if name != "sequence.projection.weight":
            assert parameter.grad is not None, name


def test_frames_are_averaged() -> None:
    torch.manual_seed(0)
    encoder = FrameMean(partial(SmallCNN, 3))
    frames = torch.randn(2, 3, 4, 16, 16)
    each = torch.stack([encoder.image(frames[:, :, i]) for i in range(4)], 1)
    assert torch.allclose(encoder(frames), each.mean(1), atol=1e-6)
    assert torch.allclose(encoder(frames), encoder(frames.flip(2)), atol=1e-6)
