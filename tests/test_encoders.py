"""Default encoders: one feature width whatever the input's size, and silent padding."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from equivox.encoders import CNN1D, MLP, BagOfTokens, Encoder, SmallCNN

IMAGES = [(1, 8, 8), (1, 28, 28), (1, 32, 48), (3, 47, 30)]
SIGNALS = [(2, 8), (3, 64), (6, 61)]


def test_mlp_flattens_and_ends_in_a_relu() -> None:
    encoder = MLP(3 * 8 * 8, (128, 16))
    assert encoder(torch.randn(5, 3, 8, 8)).shape == (5, encoder.width) == (5, 16)
    layers = [type(layer) for layer in encoder][1:]
    assert layers == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]


@pytest.mark.parametrize("shape", IMAGES)
def test_images_of_any_size_give_one_width(shape: tuple[int, ...]) -> None:
    assert SmallCNN(shape[0], width=24)(torch.randn(2, *shape)).shape == (2, 24)


@pytest.mark.parametrize("shape", SIGNALS)
def test_signals_of_any_length_give_one_width(shape: tuple[int, ...]) -> None:
    assert CNN1D(shape[0], width=24)(torch.randn(2, *shape)).shape == (2, 24)


def test_padding_and_order_of_tokens_do_not_count() -> None:
    encoder = BagOfTokens(tokens=10)
    features = encoder(torch.tensor([[3, 4, 0, 0], [4, 0, 3, 0], [3, 5, 0, 0], [0, 0, 0, 0]]))
    assert torch.allclose(features[0], features[1])
    assert not torch.allclose(features[0], features[2])
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (lambda: MLP(12), torch.randn(8, 12)),
        (lambda: SmallCNN(1), torch.randn(8, 1, 16, 16)),
        (lambda: CNN1D(3), torch.randn(8, 3, 32)),
        (lambda: BagOfTokens(20), torch.randint(1, 20, (8, 6))),
    ],
)
def test_every_parameter_learns(build: Callable[[], Encoder], inputs: torch.Tensor) -> None:
    torch.manual_seed(0)
    encoder = build()
    encoder(inputs).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
