"""Min-norm weights: the closed form, the optimality conditions, and two oracles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor
from torchjd.aggregation import MGDAWeighting

from equivox.functional import min_norm_pair, min_norm_weights


def gramian_of(*gradients: list[float]) -> Tensor:
    matrix = torch.tensor(gradients, dtype=torch.float64)
    return matrix @ matrix.T


def random_gramian(seed: int, losses: int, dimensions: int, spread: float) -> Tensor:
    """Inner products of gradients whose lengths differ by factors of about 10^`spread`."""
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(losses, dimensions, generator=generator, dtype=torch.float64)
    gradients *= 10 ** (spread * torch.randn(losses, 1, generator=generator, dtype=torch.float64))
    return gradients @ gradients.T


def pair(gramian: Tensor) -> Tensor:
    return min_norm_pair(gramian[0, 0], gramian[0, 1], gramian[1, 1])


def quadratic_program(gramian: Tensor) -> Tensor:
    g = (gramian / gramian.trace()).numpy()
    result = minimize(
        lambda w: w @ g @ w,
        [1 / len(g)] * len(g),
        jac=lambda w: 2 * g @ w,
        bounds=[(0, 1)] * len(g),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return torch.from_numpy(result.x)


def test_worked_example() -> None:
    gramian = gramian_of([1, 0], [-2, 2])
    assert float(pair(gramian)) == pytest.approx(0.769231, abs=1e-6)
    assert min_norm_weights(gramian).tolist() == pytest.approx([0.769231, 0.230769], abs=1e-6)


@pytest.mark.parametrize(
    ("second", "expected"),
    [([-1.0, 0.0], 0.5), ([-3.0, 0.0], 0.75), ([0.0, 0.0], 0.001), ([5.0, 1.0], 0.999),
     ([1.0, 0.0], 0.999), ([0.5, 0.0], 0.001)],
)  # fmt: skip
def test_pair_at_the_ends_of_the_segment(second: list[float], expected: float) -> None:
    assert float(pair(gramian_of([1, 0], second))) == pytest.approx(expected)


def test_pair_with_a_zero_first_gradient() -> None:
    assert float(pair(gramian_of([0, 0], [1, 2]))) == pytest.approx(0.999)
    assert float(pair(gramian_of([0, 0], [0, 0]))) == pytest.approx(0.999)


def test_pair_keeps_type_and_shape() -> None:
    k = min_norm_pair(*torch.tensor([1.0, -2.0, 8.0]))
    assert k.dtype == torch.float32
    assert k.shape == ()


@given(seed=st.integers(0, 9999), spread=st.floats(0, 1))
def test_two_losses_equal_the_closed_form(seed: int, spread: float) -> None:
    gramian = random_gramian(seed, losses=2, dimensions=2, spread=spread)
    first, second = gramian[0, 0] - gramian[0, 1], gramian[1, 1] - gramian[0, 1]
    exact = (second / (first + second)).clamp(0, 1)
    weights = min_norm_weights(gramian)
    assert abs(float(weights[0] - exact)) < 1e-6
    if 0.001 < float(exact) < 0.999:
        torch.testing.assert_close(weights[0], pair(gramian), rtol=0, atol=1e-6)


@given(
    seed=st.integers(0, 9999),
    losses=st.integers(2, 8),
    dimensions=st.integers(1, 20),
    spread=st.floats(0, 1),
)
def test_optimality_conditions(seed: int, losses: int, dimensions: int, spread: float) -> None:
    """Weights lie on the simplex, and no gradient is below the combination's own inner product."""
    gramian = random_gramian(seed, losses, dimensions, spread)
    weights = min_norm_weights(gramian)
    assert float(weights.min()) >= 0
    assert float(weights.sum()) == pytest.approx(1)
    inner = gramian @ weights
    assert float(weights @ inner - inner.min()) <= 1e-10 * float(gramian.trace())


@pytest.mark.parametrize("losses", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_agree_with_a_quadratic_program_solver(losses: int, seed: int) -> None:
    gramian = random_gramian(seed, losses, dimensions=12, spread=0.3)
    expected = quadratic_program(gramian)
    assert float((min_norm_weights(gramian) - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("losses", [2, 3, 5])
def test_agree_with_torchjd(losses: int) -> None:
    gramian = random_gramian(losses, losses, dimensions=12, spread=0.0)
    expected = MGDAWeighting(epsilon=1e-9, max_iters=20_000)(gramian)
    weights = min_norm_weights(gramian)
    assert float((weights - expected).abs().max()) < 1e-3  # as far as Frank-Wolfe gets
    assert float(weights @ gramian @ weights) <= float(expected @ gramian @ expected)


@pytest.mark.parametrize(
    ("gradients", "shortest"),
    [
        ([[1, 2], [-2, -4], [3, 1]], 0.0),  # antiparallel
        ([[1, 2], [1, 2], [1, 2]], 5.0),  # equal
        ([[0, 0], [1, 0], [0, 1]], 0.0),  # a zero gradient
        ([[0, 0], [0, 0]], 0.0),
        ([[1, 0], [-1, 0], [0, 1], [0, -1]], 0.0),  # many solutions
        ([[3, 4]], 25.0),  # a single loss
    ],
)
def test_degenerate_gradients(gradients: list[list[float]], shortest: float) -> None:
    gramian = gramian_of(*gradients)
    weights = min_norm_weights(gramian)
    assert float(weights @ gramian @ weights) == pytest.approx(shortest, abs=1e-9)


def test_equal_gradients_share_alike() -> None:
    weights = min_norm_weights(torch.ones(3, 3))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3))


@given(seed=st.integers(0, 999), factor=st.floats(1e-12, 1e12))
def test_scale_does_not_matter(seed: int, factor: float) -> None:
    gramian = random_gramian(seed, losses=4, dimensions=6, spread=0.3)
    expected = min_norm_weights(gramian)
    torch.testing.assert_close(min_norm_weights(factor * gramian), expected, rtol=0, atol=1e-6)


@given(seed=st.integers(0, 999), order=st.permutations(range(5)))
def test_order_of_losses_does_not_matter(seed: int, order: list[int]) -> None:
    gramian = random_gramian(seed, losses=5, dimensions=9, spread=0.3)
    expected = min_norm_weights(gramian)[order]
    permuted = gramian[order][:, order]
    torch.testing.assert_close(min_norm_weights(permuted), expected, rtol=0, atol=1e-6)


def test_common_descent_direction() -> None:
    gradients = torch.tensor([[1.0, 0.2, 0.0], [-0.6, 1.0, 0.1], [0.1, -0.4, 1.0]])
    combined = min_norm_weights(gradients @ gradients.T) @ gradients
    assert float((gradients @ combined).min()) > 0
