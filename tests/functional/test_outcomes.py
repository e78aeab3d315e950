"""Log-probabilities of outcomes, divergences between them, and InfoNCE."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equivox.functional.contrastive import info_nce
from equivox.functional.divergence import js_divergence, kl_divergence, mixture_divergence
from equivox.functional.outcomes import log_probabilities, of_truth, row_means

Divergence = Callable[[Tensor, Tensor], Tensor]


def draw(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 999), independent=st.booleans())
def test_outcomes_of_every_decision_add_up_to_one(seed: int, independent: bool) -> None:
    total = log_probabilities(draw(seed, 4, 3), independent).exp().sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_truth_gives_the_losses() -> None:
    z, classes, labels = draw(0, 4, 3), torch.tensor([0, 1, 2, 1]), draw(1, 4, 3) > 0
    found = -of_truth(log_probabilities(z), classes)
    torch.testing.assert_close(found, F.cross_entropy(z, classes, reduction="none"))
    found = -of_truth(log_probabilities(z, independent=True), labels.long())
    expected = F.binary_cross_entropy_with_logits(z, labels.float(), reduction="none")
    torch.testing.assert_close(found, expected)


def test_positions_outside_valid_do_not_count() -> None:
    valid = torch.tensor([[True, False], [False, False]])
    log_p = log_probabilities(draw(0, 2, 3, 2))
    picked = of_truth(log_p, torch.tensor([[1, 255], [255, 255]]), valid)
    means = row_means(picked, valid)
    torch.testing.assert_close(means, torch.stack([log_p[0, 1, 0], torch.zeros(())]))


@pytest.mark.parametrize("divergence", [kl_divergence, js_divergence, mixture_divergence])
def test_divergences_are_positive_and_zero_with_zero_gradient_at_equality(
    divergence: Divergence,
) -> None:
    z = draw(0, 5, 4).requires_grad_()
    same = divergence(log_probabilities(z), log_probabilities(z.detach()))
    torch.testing.assert_close(same, torch.zeros(5), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(same.sum(), z)
    assert float(gradient.abs().max()) < 1e-6
    assert bool((divergence(log_probabilities(z), log_probabilities(draw(1, 5, 4))) > 0).all())


@given(seed=st.integers(0, 999))
def test_divergences_equal_their_definitions(seed: int) -> None:
    p, q = (log_probabilities(draw(s, 4, 3)) for s in (seed, seed + 1))
    mu = ((p.exp() + q.exp()) / 2).log()

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return F.kl_div(b, a, reduction="none", log_target=True).sum(1)

    torch.testing.assert_close(kl_divergence(p, q), kl(p, q))
    torch.testing.assert_close(
        js_divergence(p, q), (kl(p, mu) + kl(q, mu)) / 2, atol=1e-6, rtol=1e-4
    )
    reverse = (kl(mu, p) + kl(mu, q)) / 2
    torch.testing.assert_close(mixture_divergence(p, q), reverse, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(mixture_divergence(q, p), mixture_divergence(p, q))
    assert float(js_divergence(p, q).max()) <= log(2) + 1e-6


@pytest.mark.parametrize("divergence", [kl_divergence, js_divergence, mixture_divergence])
def test_impossible_outcomes_stay_finite(divergence: Divergence) -> None:
    z = torch.tensor([[0.0, -torch.inf, 0.0]], requires_grad=True)
    other = torch.tensor([[0.0, -torch.inf, 2.0]])
    value = divergence(log_probabilities(z), log_probabilities(other))
    assert bool(value.isfinite().all())
    two = log_probabilities(z[:, [0, 2]]), log_probabilities(other[:, [0, 2]])
    torch.testing.assert_close(value, divergence(*two))


def test_saturated_logits_give_a_finite_gradient() -> None:
    z = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    mixture_divergence(log_probabilities(z), log_probabilities(-z.detach())).sum().backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_info_nce_equals_its_definition_and_is_symmetric() -> None:
    a, b = draw(0, 4, 3), draw(1, 4, 3)
    s = torch.cosine_similarity(a[:, None], b[None], dim=-1) / 0.5
    rows = [-s[i].log_softmax(0)[i] - s[:, i].log_softmax(0)[i] for i in range(4)]
    torch.testing.assert_close(info_nce(a, b, 0.5), torch.stack(rows).mean() / 2)
    torch.testing.assert_close(info_nce(b, a, 0.5), info_nce(a, b, 0.5))
    assert float(info_nce(a[:1], b[:1])) == 0
    weight = torch.tensor([3.0, 0, 1, 2])
    torch.testing.assert_close(info_nce(a, b, 0.5, weight), weight @ torch.stack(rows) / 12)
    torch.testing.assert_close(info_nce(a, b, 0.5, 7 * torch.ones(4)), info_nce(a, b, 0.5))
    assert float(info_nce(a, b, 0.5, torch.zeros(4))) == 0
