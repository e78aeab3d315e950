"""AMSS: the worked examples, how units are drawn, what is masked, unbiasedness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equivox import Balancer, Classification, Concat, Joint, Method, Multimodal, Regression
from equivox.functional import entropy
from equivox.functional.label_entropy import constant_loss, label_facts
from equivox.functional.sampling import (
    inclusion_probabilities,
    successive_draws,
    systematic_draws,
    update_ratios,
)
from equivox.functional.units import spread, unit_shares, units_of
from equivox.methods.optimization.amss import AMSS
from equivox.task import MultiLabel

P = torch.tensor([0.4, 0.1, 0.3, 0.2])
TWO = torch.tensor(2.0)


def close(found: Tensor, expected: Any, atol: float = 2e-6) -> None:
    torch.testing.assert_close(found.float(), torch.tensor(expected), atol=atol, rtol=0)


def test_significance_by_hand() -> None:
    y = torch.tensor([0, 1])
    z = {"a": torch.tensor([[2, 0], [0, 1.5]]), "v": torch.tensor([[0.3, 0], [0, 0.2]])}
    f = {
        "a": torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]),
        "v": torch.tensor([[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0]]),
    }
    labels = constant_loss(Classification(), label_facts(Classification(), z["a"], y).mean(0))
    close(labels, 0.693147)
    h = torch.stack([entropy(f[m]).mean() for m in f])
    close(h, [1.268301, 1.355994])
    rho = (labels - torch.stack([F.cross_entropy(z[m], y) for m in z]) + 0.5) / h
    close(rho, [0.811303, 0.454943])
    close(update_ratios(rho, 0.2), [0.144081, 0.855919])
    close(update_ratios(rho, 0.5), [0.328998, 0.671002])


def test_three_modalities_by_hand() -> None:
    rho = torch.tensor([1.622606, 0.909886, 1.2])
    close(update_ratios(rho, 1.0), [0.533940, 0.771487, 0.694574])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_undefined_significance_gives_one_half(bad: float) -> None:
    close(update_ratios(torch.tensor([1.0, bad]), 0.2), [0.5, 0.5])


def test_label_entropy_is_the_loss_of_the_best_constant() -> None:
    close(constant_loss(Classification(), torch.tensor([0.75, 0.25])), 0.562335)
    torch.manual_seed(0)
    y = torch.randn(20, 2)
    facts = label_facts(Regression(outputs=2), y, y).mean(0)
    close(constant_loss(Regression(), facts), y.var(0, correction=0).mean().item(), 1e-5)
    labels = torch.tensor([[1, 0], [0, 0], [1, 1], [1, 0]])
    p = labels.float().mean(0)
    best = MultiLabel().loss(p.logit().expand(4, 2), labels)
    found = constant_loss(MultiLabel(), label_facts(MultiLabel(), p.expand(4, 2), labels).mean(0))
    torch.testing.assert_close(found, best)


def test_successive_draws_have_their_exact_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = successive_draws(
        P.expand(20_000, 4), TWO, torch.rand(20_000, 4, generator=generator, dtype=torch.float64)
    )
    assert (drawn.sum(1) == 2).all()
    close(drawn.float().mean(0), [0.715873, 0.234524, 0.608333, 0.441270], atol=0.012)


def test_inclusion_probabilities_by_hand() -> None:
    pi = inclusion_probabilities(P, TWO)
    close(pi, [0.8, 0.2, 0.6, 0.4])
    close(1 / pi, [1.25, 5, 1.666667, 2.5])
    close(
        inclusion_probabilities(torch.tensor([0.7, 0.1, 0.1, 0.1]), TWO), [1, 1 / 3, 1 / 3, 1 / 3]
    )


@pytest.mark.parametrize("k", [1.0, 3.0, 7.0])
def test_inclusion_probabilities_add_up_to_k(k: float) -> None:
    p = torch.rand(50, 7, generator=torch.Generator().manual_seed(1)).pow(4)
    pi = inclusion_probabilities(p / p.sum(1, keepdim=True), torch.tensor(k))
    assert (pi <= 1).all() and (pi > 0).all()
    torch.testing.assert_close(pi.sum(1), torch.full((50,), k, dtype=pi.dtype))


def test_systematic_draws_have_their_exact_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    pi = inclusion_probabilities(P, TWO)
    start = torch.rand(20_000, generator=generator, dtype=torch.float64)
    uniform = torch.rand(20_000, 4, generator=generator)
    drawn = systematic_draws(pi.expand(20_000, 4), start, uniform)
    assert (drawn.sum(1) == 2).all()
    close(drawn.float().mean(0), pi.tolist(), atol=0.01)
    close((drawn / pi).mean(0), [1.0] * 4, atol=0.04)


def test_released_weights_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    method = AMSS(plus="code")
    expected = torch.tensor([1.538462, 2.857143, 1.818182, 2.222222])
    for _ in range(5):
        mask = method._drawn(P[None], TWO.double(), generator)[0]
        assert (mask > 0).sum() == 2
        torch.testing.assert_close(mask[mask > 0].float(), expected[mask > 0])


def test_numbers_of_units_by_hand() -> None:
    q = torch.tensor([0.37, 0.1, 0.9])
    assert torch.ceil(64 * q[0] - 1e-6) == 24
    assert torch.floor(512 * q[0] + 1e-6) == 189
    assert torch.ceil(10 * q[1:] - 1e-6).tolist() == [1, 9]
    assert torch.floor(10 * q[1:] + 1e-6).tolist() == [1, 9]


def test_shares_and_ratios_forget_scale_and_order() -> None:
    g = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    p, _ = unit_shares(g, (1, 1, 6, 3))
    torch.testing.assert_close(p.sum(-1), torch.ones(1))
    torch.testing.assert_close(unit_shares(-7 * g, (1, 1, 6, 3))[0], p)
    torch.testing.assert_close(unit_shares(g.flip(0), (1, 1, 6, 3))[0], p.flip(-1))
    rho = torch.tensor([0.3, 0.9, 0.5])
    torch.testing.assert_close(update_ratios(rho.flip(0), 0.5), update_ratios(rho, 0.5).flip(0))


def test_vanished_gradient_is_not_masked() -> None:
    for value in (0.0, float("nan"), float("inf")):
        _, known = unit_shares(torch.full((4, 2), value), (1, 1, 4, 2))
        assert not known.any()


class Residual(nn.Module):
    """A small convolutional encoder: a stem, a masked convolution, BatchNorm, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 10, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.downsample = nn.Conv2d(4, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        z: Tensor = self.norm(self.conv(x)) + self.downsample(x)
        return z.relu().mean((2, 3))


def gradients(method: Method, seed: int = 0, count: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(0)
    names = [f"m{i}" for i in range(count)]
    model = Multimodal({m: Residual() for m in names}, Concat(dict.fromkeys(names, 10), 3))
    balancer = Balancer(model, method, task=Classification(), seed=seed)
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    inputs = {m: torch.randn(6, 1, 5, 5) for m in names}
    balancer(inputs, torch.arange(6) % 3).backward()
    optimizer.step()
    return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("count", [2, 3])
def test_exactly_k_filters_keep_their_gradient(count: int) -> None:
    plain = gradients(Joint(), count=count)
    found = gradients(AMSS(plus=None, bounds=(0.3, 0.3)), count=count)
    for m in (f"m{i}" for i in range(count)):
        name = f"encoders.{m}.conv.weight"
        kept = found[name].flatten(1).abs().sum(1) > 0
        assert kept.sum() == 3
        assert torch.equal(found[name][kept], plain[name][kept])
    masked = {k for k in plain if not torch.equal(plain[k], found[k])}
    assert masked == {f"encoders.m{i}.conv.weight" for i in range(count)} | {"fusion.linear.weight"}
    for block in found["fusion.linear.weight"].split(10, 1):
        assert ((block != 0).sum(1) == 3).all()


def test_head_can_be_left_alone() -> None:
    found = gradients(AMSS(plus=None, bounds=(0.3, 0.3), mask_head=False))
    plain = gradients(Joint())
    assert torch.equal(found["fusion.linear.weight"], plain["fusion.linear.weight"])


def test_all_units_change_nothing() -> None:
    plain, found = gradients(Joint()), gradients(AMSS(bounds=(1.0, 1.0), plus=None))
    assert all(torch.equal(plain[k], found[k]) for k in plain)


def test_one_modality_is_not_masked() -> None:
    plain, found = gradients(Joint(), count=1), gradients(AMSS(), count=1)
    assert all(torch.equal(plain[k], found[k]) for k in plain)


def test_inverse_probabilities_are_unbiased() -> None:
    method, generator = AMSS(), torch.Generator().manual_seed(0)
    plain = torch.randn(8, 3, generator=generator)
    total = torch.zeros_like(plain)
    for _ in range(4000):
        g = plain.clone()
        method._mask_(g, (1, 1, 8, 3), torch.tensor(3.0), generator)
        total += g
    torch.testing.assert_close(total / 4000, plain, atol=0.12, rtol=0.12)


def test_topk_keeps_the_largest() -> None:
    method = AMSS(sample="topk", plus=None)
    mask = method._drawn(P[None], TWO.double(), torch.Generator())[0]
    assert mask.tolist() == [1, 0, 1, 0]


def test_units_of_attention_and_recurrence() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    views = [u.view for u in units_of(layer)]
    assert views == [(3, 1, 2, 32), (1, 8, 2, 4)]
    assert [u.view for u in units_of(nn.LSTM(3, 5))] == [(1, 4, 5, 3), (1, 4, 5, 5)]


def test_a_head_is_whole_in_every_row() -> None:
    mask = torch.tensor([[1.0, 0]])
    full = spread(mask, (1, 4, 2, 3), torch.zeros(4, 6))
    assert full.tolist() == [[1, 1, 1, 0, 0, 0]] * 4


@pytest.mark.parametrize(
    "arguments",
    [{"tau": 0.0}, {"bounds": (0.0, 0.5)}, {"plus": "x"}, {"sample": "topk"}, {"sample": "x"}],
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Found"):
        AMSS(**arguments)
