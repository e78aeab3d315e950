"""OGM-GE: the worked example, noise, what is never touched, ties and permutations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox import Balancer, Classification, Concat, Joint, Method, Multimodal, Sum
from equivox.methods.optimization.ogm_ge import OGMGE, ogm_coefficients

Z = {
    "audio": torch.tensor([[1.0, 0.5], [-0.5, 1.0]]),
    "video": torch.tensor([[0.2, -0.1], [0.3, 0.4]]),
}
W = torch.tensor([[1, 0, 0.5, 0], [0, 1, 0, 0.5], [-1, -1, 0.2, 0.3]])
B = torch.tensor([0.1, -0.2, 0.1])
Y = torch.tensor([0, 1])
SHARES = {
    "audio": torch.tensor([[1.05, 0.40, -1.45], [-0.45, 0.90, -0.45]]),
    "video": torch.tensor([[0.15, -0.15, 0.06], [0.20, 0.10, 0.23]]),
}


def toy() -> Concat:
    fusion = Concat({"audio": 2, "video": 2}, 3)
    fusion.linear.weight.data.copy_(W)
    fusion.linear.bias.data.copy_(B)
    return fusion


def scores() -> dict[str, Tensor]:
    return {m: Classification().score(o, Y).sum() for m, o in SHARES.items()}


def network(dominant: str = "audio") -> Multimodal:
    """Convolution, norm and linear layer each; the dominant modality's weights are larger."""
    torch.manual_seed(0)

    def encoder() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4), nn.Tanh()
        )

    model = Multimodal({"audio": encoder(), "video": encoder()}, Concat(dict.fromkeys(Z, 4), 3))
    weights = model.fusion.weights()
    weights[dominant].data.mul_(3)
    return model


def gradients(method: Method, epoch: int = 0, **options: Any) -> dict[str, Tensor]:
    """The gradients that the optimizer sees in the first step of an epoch."""
    model = network(**options)
    balancer = Balancer(model, method, task=Classification(), seed=torch.seed() % 2**31)
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    balancer.progress.epoch = epoch
    torch.manual_seed(1)
    inputs = {m: torch.randn(16, 1, 3, 3) for m in Z}
    with torch.no_grad():
        target = model(inputs).split["audio"].argmax(1)
    balancer(inputs, target).backward()
    optimizer.step()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_shares_of_the_worked_example() -> None:
    fusion = toy()
    shares = fusion.unimodal(Z)
    for modality, expected in SHARES.items():
        torch.testing.assert_close(shares[modality], expected)
    torch.testing.assert_close(shares["audio"] + shares["video"], fusion(Z))


def test_shares_of_summed_layers_keep_their_bias() -> None:
    fusion = Sum({"audio": 2, "video": 2}, 3)
    layer = fusion.linears["audio"]
    torch.testing.assert_close(fusion.unimodal(Z)["audio"], layer(Z["audio"]))


def test_scores_and_ratios_of_the_worked_example() -> None:
    p = {m: Classification().score(o, Y) for m, o in SHARES.items()}
    torch.testing.assert_close(p["audio"], torch.tensor([0.623391, 0.658553]), rtol=0, atol=1e-6)
    torch.testing.assert_close(p["video"], torch.tensor([0.376683, 0.308261]), rtol=0, atol=1e-6)
    total = scores()
    assert (total["audio"] / total["video"]).item() == pytest.approx(1.871601, abs=1e-5)


@pytest.mark.parametrize(
    ("alpha", "tanh", "minus_one"),
    [
        (0.1, 0.814995, 0.929781),
        (0.3, 0.490925, 0.789344),
        (0.5, 0.266713, 0.648907),
        (0.8, 0.095344, 0.438251),
    ],
)
def test_coefficients_of_the_worked_example(alpha: float, tanh: float, minus_one: float) -> None:
    for z, expected in {"tanh": tanh, "tanh_minus_one": minus_one}.items():
        k = ogm_coefficients(scores(), alpha, z)
        assert k["audio"].item() == pytest.approx(expected, abs=1e-5)
        assert k["video"].item() == 1.0


def test_coefficients_follow_the_modalities() -> None:
    names = ("a", "b", "c")
    values = dict(zip(names, torch.tensor([0.6, 0.4, 0.2]), strict=True))
    k = ogm_coefficients(values, 0.5)
    assert k["a"] < k["b"] < 1
    assert k["c"] == 1
    backwards = ogm_coefficients({m: values[m] for m in reversed(names)}, 0.5)
    assert all(torch.equal(k[m], backwards[m]) for m in names)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_tie_damps_nobody(count: int) -> None:
    k = ogm_coefficients({f"m{i}": torch.tensor(0.3) for i in range(count)}, 0.8)
    assert all(x == 1 for x in k.values())


@pytest.mark.parametrize(
    "method",
    [
        lambda: OGMGE(alpha=0.0, noise=False),
        lambda: OGMGE(alpha=0.8, starts=1),
        lambda: OGMGE(alpha=0.8, starts=3, ends=5),
    ],
)
def test_leaves_every_gradient_bit_for_bit(method: Callable[[], Method]) -> None:
    plain, changed = gradients(Joint()), gradients(method())
    assert all(torch.equal(changed[name], g) for name, g in plain.items())


def test_the_last_epoch_is_inclusive() -> None:
    method = {"alpha": 0.8, "noise": False, "starts": 1, "ends": 2}
    moved = []
    for epoch in range(4):
        plain, changed = gradients(Joint(), epoch), gradients(OGMGE(**method), epoch)
        moved.append(not all(torch.equal(changed[n], g) for n, g in plain.items()))
    assert moved == [False, True, True, False]


@pytest.mark.parametrize("dominant", ["audio", "video"])
def test_damps_the_weights_of_the_dominant_encoder_alone(dominant: str) -> None:
    plain = gradients(Joint(), dominant=dominant)
    damped = gradients(OGMGE(alpha=0.5, noise=False), dominant=dominant)
    ratios = {}
    for name, g in plain.items():
        if g.ndim < 2 or not name.startswith("encoders."):
            assert torch.equal(damped[name], g)
        else:
            ratios.setdefault(name.split(".")[1], []).append((damped[name] / g).mean().item())
    assert sorted(x < 0.99 for x in (ratios["audio"][0], ratios["video"][0])) == [False, True]
    assert all(values == pytest.approx([values[0]] * 2, rel=1e-4) for values in ratios.values())


def test_the_filter_of_the_code_takes_convolutions_alone() -> None:
    plain = gradients(Joint())
    damped = gradients(OGMGE(alpha=0.5, params="conv4d"))
    changed = {n for n, g in plain.items() if not torch.equal(damped[n], g)}
    assert changed == {"encoders.audio.0.weight", "encoders.video.0.weight"}


def test_noise_is_as_large_as_the_gradient_for_every_modality() -> None:
    plain, damped = gradients(Joint()), gradients(OGMGE(alpha=0.5, noise=False))
    torch.manual_seed(7)
    runs = []
    for draw in range(200):
        torch.manual_seed(draw)
        runs.append(gradients(OGMGE(alpha=0.5)))
    for name, g in plain.items():
        noise = torch.stack([run[name] for run in runs]) - damped[name]
        if g.ndim < 2 or not name.startswith("encoders."):
            assert not noise.any()
        else:
            spread = noise.std().item()
            assert spread == pytest.approx(g.std().item(), rel=0.05)
            assert abs(noise.mean().item()) < 4 * spread / noise.numel() ** 0.5


def test_a_single_entry_gets_no_noise() -> None:
    net = {m: nn.Linear(1, 1, bias=False) for m in Z}
    model = Multimodal(net, Concat(dict.fromkeys(Z, 1), 2))
    balancer = Balancer(model, OGMGE(alpha=0.0), task=Classification())
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    balancer({m: torch.ones(3, 1) for m in Z}, torch.tensor([0, 1, 1])).backward()
    before = [p.grad.clone() for p in model.encoders.parameters()]
    optimizer.step()
    after = [p.grad for p in model.encoders.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"params": "all"}, {"z": "relu"}])
def test_refuses_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` should be"):
        OGMGE(**bad)
