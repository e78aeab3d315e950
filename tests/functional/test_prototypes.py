"""Prototypes: PMR's worked example, unseen classes, gradients at distance zero."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from equivox.functional import class_means, entropy, prototype_logits
from equivox.functional.prototypes import moved_prototypes, prototype_loss

Z = {
    "first": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    "second": torch.tensor([[0.4, 0.3], [0.6, 0.2]]),
}
C = {
    "first": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    "second": torch.tensor([[0.5, 0.0], [0.0, 0.5]]),
}
Y = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("modality", "distances", "loss", "mean_entropy", "true"),
    [
        ("first", [0, 1.414214, 1.414214, 0], 0.217622, 0.494200, [0.804430, 0.804430]),
        ("second", [0.316228, 0.447214, 0.223607, 0.670820], 0.785673, 0.679883,
         [0.532700, 0.390023]),
    ],
)  # fmt: skip
def test_worked_example(
    modality: str, distances: list[float], loss: float, mean_entropy: float, true: list[float]
) -> None:
    logits = prototype_logits(Z[modality], C[modality])
    assert (-logits).flatten().tolist() == pytest.approx(distances, abs=2e-6)
    probability = logits.softmax(1)[range(2), Y]
    assert probability.tolist() == pytest.approx(true, abs=2e-6)
    assert float(F.cross_entropy(logits, Y)) == pytest.approx(loss, abs=2e-6)
    assert float(entropy(logits).mean()) == pytest.approx(mean_entropy, abs=2e-6)


@given(seed=st.integers(0, 999), batch=st.integers(0, 20))
def test_class_means_equal_a_loop(seed: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, 3, generator=generator)
    target = torch.randint(0, 4, (batch,), generator=generator)
    sums, counts = class_means(features, target, classes=6)
    for k in range(6):
        torch.testing.assert_close(sums[k], features[target == k].sum(0))
        assert int(counts[k]) == int((target == k).sum())


def test_sums_and_counts_add_up_over_batches() -> None:
    features, target = torch.randn(30, 4), torch.arange(30) % 5
    whole = class_means(features, target, 5)
    parts = [class_means(features[i : i + 7], target[i : i + 7], 5) for i in range(0, 30, 7)]
    for total, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.stack(pieces).sum(0), total)


def test_low_precision_features_are_summed_in_float32() -> None:
    sums, _ = class_means(torch.ones(1000, 1, dtype=torch.bfloat16), torch.zeros(1000).long(), 1)
    assert sums.dtype == torch.float32
    assert float(sums) == 1000  # bfloat16 stops at 256


def test_close_points_far_from_the_origin_keep_their_distance() -> None:
    """The matrix-product expansion, the default above 25 rows, gives zero or noise here."""
    centres = 1000 + torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    features = centres + 0.01
    exact = torch.linalg.vector_norm(features - centres, dim=1)
    logits = prototype_logits(features, centres)
    torch.testing.assert_close(-logits.diagonal(), exact, rtol=1e-5, atol=0)
    assert float((torch.cdist(features, centres).diagonal() / exact - 1).abs().max()) > 0.1


def test_gradient_is_right_and_zero_at_a_prototype() -> None:
    centres = torch.randn(3, 4, dtype=torch.float64)
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: prototype_logits(z, centres), features)
    at_centre = centres.clone().requires_grad_()
    prototype_logits(at_centre, centres).diagonal().sum().backward()
    assert at_centre.grad is not None
    assert torch.equal(at_centre.grad, torch.zeros_like(at_centre))


def test_unseen_classes_take_no_part() -> None:
    features = torch.randn(4, 3, requires_grad=True)
    centres = torch.randn(3, 3)
    seen = torch.tensor([True, False, True])
    unknown = centres.clone()
    unknown[1] = torch.nan
    logits = prototype_logits(features, unknown, seen)
    assert bool((logits[:, 1] == -torch.inf).all())
    target = torch.tensor([0, 1, 0, 1])
    loss = F.cross_entropy(logits, 2 * target) + entropy(logits).mean()
    (gradient,) = torch.autograd.grad(loss, features)

    reduced = prototype_logits(features, centres[seen])
    expected = F.cross_entropy(reduced, target) + entropy(reduced).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, features)[0])


def test_prototypes_work_under_autocast_in_float32() -> None:
    features = torch.randn(4, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = prototype_logits(features, torch.randn(3, 8))
    assert logits.dtype == torch.float32


@given(logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=6))
def test_entropy_lies_between_zero_and_its_maximum(logits: list[float]) -> None:
    value = float(entropy(torch.tensor(logits)))
    assert -1e-6 <= value <= float(torch.tensor(float(len(logits))).log()) + 1e-5


def test_entropy_has_a_right_gradient_without_nan() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy, logits)
    extreme = torch.tensor([[0.0, -torch.inf, -300.0]], requires_grad=True)
    entropy(extreme).sum().backward()
    assert extreme.grad is not None
    assert bool(extreme.grad.isfinite().all())


def test_prototypes_move_with_momentum_on_the_old() -> None:
    old, new = torch.ones(3, 1), torch.full((3, 1), 2.0)
    seen, found = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    moved = moved_prototypes(old, new, seen, found, 0.2)
    torch.testing.assert_close(moved, torch.tensor([[1.8], [2.0], [1.0]]))


def test_an_unseen_class_counts_for_nothing() -> None:
    logits = torch.tensor([[[0.0, 1.0, -torch.inf]], [[0.5, 0.0, -torch.inf]]], requires_grad=True)
    errors = prototype_loss(logits, torch.tensor([[2], [0]]), torch.tensor([[False], [True]]))
    errors.sum().backward()
    assert errors[0] == 0
    assert errors[1].isfinite()
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert logits.grad.isfinite().all()
