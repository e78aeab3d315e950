"""The derivative of a held-out loss by the weight of a training loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equivox.functional.bilevel import hypergradient, mean_curvature


def test_the_derivative_of_the_worked_toy() -> None:
    theta = torch.tensor([1.0], requires_grad=True)

    def losses() -> tuple[Tensor, Tensor]:
        return (theta - 2).square().sum(), (theta + 1).square().sum()

    found = hypergradient(losses, losses, [theta], torch.tensor(0.3), 0.1)
    assert float(theta.detach()) == pytest.approx(1.02, abs=1e-6)
    assert float(found) == pytest.approx(1.176, abs=1e-5)


def test_the_derivative_equals_finite_differences() -> None:
    torch.manual_seed(0)
    x, v, w = torch.randn(3, 5, dtype=torch.float64)

    def after(alpha: float) -> tuple[Tensor, Tensor]:
        theta = w.clone().requires_grad_()
        losses = lambda: ((theta * x).sum().cos(), theta.pow(4).sum())  # noqa: E731
        held_out = lambda: ((theta * v).sum().sin(), theta.sum())  # noqa: E731
        one = torch.tensor(alpha, dtype=torch.float64)
        slope = hypergradient(losses, held_out, [theta], one, 0.05)
        return held_out()[0].detach(), slope

    ahead, behind = after(0.4 + 1e-5)[0], after(0.4 - 1e-5)[0]
    torch.testing.assert_close(after(0.4)[1], (ahead - behind) / 2e-5)


def test_mean_curvature_is_a_hessian_vector_product() -> None:
    first, second = (torch.tensor([x], requires_grad=True) for x in (2.0, 3.0))

    def losses() -> tuple[Tensor, Tensor]:
        return (first * second).square().sum(), first.pow(3).sum()

    found = mean_curvature(losses, [first, second], torch.tensor(0.5))
    # H = ½ [[2 b² + 6 a, 4 a b], …] and g = (2 a b², 2 a² b) at a = 2, b = 3.
    assert float(found) == pytest.approx(0.5 * ((18 + 12) * 36 + 24 * 24))


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_equal_losses_have_no_slope(alpha: float) -> None:
    theta = torch.tensor([1.0, -2.0], requires_grad=True)

    def losses() -> tuple[Tensor, Tensor]:
        return theta.pow(4).sum(), theta.pow(4).sum()

    assert float(hypergradient(losses, losses, [theta], torch.tensor(alpha), 0.1)) == 0


def test_a_loss_that_misses_a_parameter_pulls_it_nowhere() -> None:
    theta, other = (torch.tensor([1.0], requires_grad=True) for _ in range(2))

    def losses() -> tuple[Tensor, Tensor]:
        return theta.square().sum(), theta.sum()

    hypergradient(losses, losses, [theta, other], torch.tensor(0.5), 0.1)
    assert float(other.detach()) == 1
