"""Residual and boosting losses: by hand, their limits, and what they have in common."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import equivox as ev
from equivox.functional.boosting import boosting_losses, residual_losses


def test_the_residual_loss_by_hand() -> None:
    pre, add = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.5, 0.2, 0]])
    y, task, lam = torch.tensor([0]), ev.Classification(), 0.5
    residual = residual_losses(add, pre.softmax(-1), y, task, lam)
    assert residual.item() == pytest.approx(0.607490, abs=1e-6)
    other = task.loss(add, y) - lam * pre.softmax(-1)[0, 0] * task.loss(add, y)
    assert other.item() == pytest.approx(0.607490, abs=1e-6)
    assert task.loss(pre + add, y).item() == pytest.approx(0.402569, abs=1e-6)
    assert task.loss(pre, y).item() == pytest.approx(0.551445, abs=1e-6)


def test_without_smoothing_it_is_the_loss_of_the_learner() -> None:
    torch.manual_seed(0)
    add, pre = torch.randn(6, 3), torch.randn(6, 3)
    y = torch.arange(6) % 3
    found = residual_losses(add, pre.softmax(-1), y, ev.Classification(), 0.0)
    torch.testing.assert_close(found, F.cross_entropy(add, y, reduction="none"))
    labels = F.one_hot(y, 3)
    found = residual_losses(add, pre.sigmoid(), labels, ev.MultiLabel(), 0.0)
    torch.testing.assert_close(found, ev.MultiLabel().loss(add, labels, "none"))
    soft = torch.rand(6, 3).softmax(-1)
    found = residual_losses(add, pre.softmax(-1), soft, ev.Classification(), 0.0)
    torch.testing.assert_close(found, F.cross_entropy(add, soft, reduction="none"))


def test_residuals_of_numbers_and_labels_by_hand() -> None:
    add, pre, y = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([3.0])
    assert residual_losses(add, pre, y, ev.Regression(1), 0.5).item() == 1.0
    found = residual_losses(
        torch.zeros(1, 2), torch.full((1, 2), 0.5), torch.tensor([[1, 0]]), ev.MultiLabel(), 0.5
    )
    assert found.item() == pytest.approx(0.693147, abs=1e-6)


def test_the_residual_label_is_a_constant_and_not_negative() -> None:
    pre = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    add = torch.zeros(4, 3, requires_grad=True)
    y = torch.arange(4) % 3
    residual_losses(add, pre.softmax(-1), y, ev.Classification(), 0.5).sum().backward()
    assert pre.grad is None and add.grad is not None
    many = torch.full((4, 3), 5.0)  # sums of several classifiers' probabilities
    found = residual_losses(torch.zeros(4, 3), many, y, ev.Classification(), 0.5)
    assert torch.equal(found, torch.zeros(4))


def test_the_boosting_loss_by_hand() -> None:
    f = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    phi, y = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0])
    loss = boosting_losses(f, phi, y, ev.Classification())
    assert loss.item() == pytest.approx(0.880117, abs=1e-6)
    loss.sum().backward()
    expected = torch.tensor([[-0.676526, 0.338263, 0.338263]])
    torch.testing.assert_close(f.grad, expected, rtol=0, atol=1e-6)
    agreement = (f.softmax(-1) - phi.softmax(-1)).square().mean()
    assert agreement.item() == pytest.approx(0.088416, abs=1e-6)


def test_without_the_others_it_is_scaled_cross_entropy() -> None:
    torch.manual_seed(0)
    f, phi, y = torch.randn(8, 4), torch.randn(8, 4), torch.arange(8) % 4
    found = boosting_losses(f, phi, y, ev.Classification(), w1=5.0, w2=0.0)
    torch.testing.assert_close(found, 5 / 4 * F.cross_entropy(f, y, reduction="none"))


def test_weights_fall_with_what_the_others_know() -> None:
    f, y = torch.zeros(21, 3), torch.zeros(21, dtype=torch.long)
    phi = F.one_hot(y, 3) * torch.linspace(-20, 20, 21)[:, None]
    each = F.cross_entropy(f, y, reduction="none") / 3
    weights = boosting_losses(f, phi, y, ev.Classification()) / each
    assert ((weights >= 4 - 1e-5) & (weights <= 5 + 1e-5)).all()
    assert (weights.diff() <= 0).all()


def test_regression_fits_the_residual_and_labels_are_weighted_each() -> None:
    f, phi, y = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([3.0])
    found = boosting_losses(f, phi, y, ev.Regression(1))
    torch.testing.assert_close(found, torch.tensor([(1 - (3 - 0.2 * 2)) ** 2]))
    f, phi, y = torch.zeros(1, 2), torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    found = boosting_losses(f, phi, y, ev.MultiLabel(2))
    torch.testing.assert_close(found, 4.5 * torch.tensor(2.0).log().view(1))


def test_a_first_learner_has_the_agreement_that_is_asked_for() -> None:
    torch.manual_seed(0)
    f, y, task = torch.randn(8, 4), torch.arange(8) % 4, ev.Classification()
    plain = F.cross_entropy(f, y, reduction="none")
    torch.testing.assert_close(boosting_losses(f, None, y, task), 5 / 4 * plain)
    torch.testing.assert_close(boosting_losses(f, None, y, task, initial=1.0), plain)
    found = boosting_losses(f[:, :1], None, y.float(), ev.Regression(1), 1.0, 1.0, initial=1.0)
    torch.testing.assert_close(found, (f[:, 0] - y).square())


@given(seed=st.integers(0, 99), w1=st.floats(0.5, 8), share=st.floats(0, 1))
def test_both_losses_agree_on_class_numbers(seed: int, w1: float, share: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    f, phi = torch.randn(2, 6, 4, generator=draw, dtype=torch.float64)
    y, task = torch.randint(4, (6,), generator=draw), ev.Classification()
    found = boosting_losses(f, phi, y, task, w1, share * w1)
    residual = residual_losses(f, phi.softmax(-1), y, task, share)
    torch.testing.assert_close(found, w1 / 4 * residual, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 99), lam=st.floats(0, 1))
def test_the_order_of_the_classes_does_not_matter(seed: int, lam: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    f, phi = torch.randn(2, 6, 4, generator=draw)
    y, task = torch.randint(4, (6,), generator=draw), ev.Classification()
    order = torch.randperm(4, generator=draw)
    place, known = order.argsort()[y], phi.softmax(-1)
    torch.testing.assert_close(
        residual_losses(f, known, y, task, lam),
        residual_losses(f[:, order], known[:, order], place, task, lam),
    )
    torch.testing.assert_close(
        boosting_losses(f, phi, y, task),
        boosting_losses(f[:, order], phi[:, order], place, task),
    )
