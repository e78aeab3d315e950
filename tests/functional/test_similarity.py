"""Cosine logits and the supervised contrastive term of MMCosine."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equivox.functional import cosine_logits, supervised_nce, unit

Z = {
    "audio": torch.tensor([[1.0, 0.5], [-0.5, 1.0]]),
    "video": torch.tensor([[0.2, -0.1], [0.3, 0.4]]),
}
W = {
    "audio": torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]),
    "video": torch.tensor([[0.5, 0.0], [0.0, 0.5], [0.2, 0.3]]),
}
Y = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("scale", "expected", "loss", "tolerance"),
    [
        (1.0, [[1.788854, 0, -0.824649], [0.152786, 1.694427, 0.682233]], 0.335633, 2e-6),
        (2.0, [[3.577709, 0, -1.649297], [0.305573, 3.388854, 1.364465]], 0.098243, 2e-6),
        (10.0, [[17.88854, 0, -8.24649], [1.52786, 16.94427, 6.82233]], 2.0e-5, 1e-6),
    ],
)
def test_worked_example(
    scale: float, expected: list[list[float]], loss: float, tolerance: float
) -> None:
    logits = sum(cosine_logits(Z[m], W[m], scale) for m in Z)
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=0, atol=1e-5)
    assert float(F.cross_entropy(logits, Y)) == pytest.approx(loss, abs=tolerance)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 999), scale=st.floats(0.1, 100))
def test_logits_are_bounded_by_the_scale(seed: int, scale: float) -> None:
    logits = cosine_logits(draw(seed, 4, 3), draw(seed + 1, 5, 3), scale)
    assert float(logits.abs().max()) <= scale * (1 + 1e-6)


@given(seed=st.integers(0, 999), factor=st.floats(1e-3, 1e3))
def test_lengths_do_not_matter(seed: int, factor: float) -> None:
    z, w = draw(seed, 4, 3), draw(seed + 1, 5, 3)
    rows = torch.tensor([factor, 1.0, 2.0, 1.0, 0.5])[:, None]
    expected = cosine_logits(z, w, 10.0)
    torch.testing.assert_close(cosine_logits(factor * z, rows * w, 10.0), expected)


def test_gradient_is_orthogonal_to_the_features() -> None:
    z = draw(0, 4, 3).requires_grad_()
    F.cross_entropy(cosine_logits(z, draw(1, 5, 3), 10.0), torch.tensor([0, 1, 2, 3])).backward()
    assert z.grad is not None
    assert float(z.grad.norm()) > 0.01
    assert float((z.grad * z.detach()).sum(1).abs().max()) < 1e-5


def test_gradients_are_right() -> None:
    z, w = draw(0, 3, 4).double().requires_grad_(), draw(1, 5, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z, w: cosine_logits(z, w, 3.0), (z, w))


def test_a_blanked_feature_gives_zero_logits_and_no_gradient() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    logits = cosine_logits(z, W["audio"], 10.0)
    assert torch.equal(logits[0], torch.zeros(3))
    F.cross_entropy(logits, Y).backward()
    assert z.grad is not None
    assert torch.equal(z.grad[0], torch.zeros(2))
    assert float(z.grad[1].norm()) > 0


def test_very_short_vectors_follow_the_formula() -> None:
    x = torch.tensor([[5e-13, 0.0], [0.0, 3e-12]])
    torch.testing.assert_close(unit(x), torch.tensor([[0.5, 0.0], [0.0, 1.0]]))


def test_logits_stay_float32_under_autocast() -> None:
    z, w = draw(0, 4, 3), draw(1, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = cosine_logits(z, w, 10.0)
        nce = supervised_nce(z, draw(2, 4, 3), torch.tensor([0, 1, 1, 0]))
    assert torch.equal(logits, cosine_logits(z, w, 10.0))
    assert nce.dtype == torch.float32
    assert cosine_logits(z.bfloat16(), w, 10.0).dtype == torch.float32


def nce_by_loops(first: Tensor, second: Tensor, target: list[int], temperature: float) -> float:
    rows = []
    for i, z in enumerate(first):
        cosines = torch.stack([torch.cosine_similarity(z, other, dim=0) for other in second])
        p = torch.softmax(cosines / temperature, dim=0)
        same = [-torch.log(p[j] + 1e-10) for j in range(len(p)) if target[j] == target[i]]
        other = [-torch.log(1 - p[j] + 1e-10) for j in range(len(p)) if target[j] != target[i]]
        push = sum(other) / len(other) if other else 0.0
        rows.append(float(sum(same) / len(same) + push))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("target", [[0, 1, 0, 2, 1], [0, 1, 2, 3, 4], [3, 3, 3, 3, 3]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nce_equals_its_definition(target: list[int], temperature: float) -> None:
    first, second = draw(0, 5, 3), draw(1, 5, 3)
    value = supervised_nce(first, second, torch.tensor(target), temperature)
    expected = nce_by_loops(first, second, target, temperature)
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_nce_has_a_finite_gradient_where_probabilities_saturate() -> None:
    first = torch.eye(4).requires_grad_()
    supervised_nce(first, torch.eye(4), torch.arange(4), temperature=0.001).backward()
    assert first.grad is not None
    assert bool(first.grad.isfinite().all())
