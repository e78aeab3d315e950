"""The matrix of recursive least squares."""

from __future__ import annotations

import torch

from equivox.functional.least_squares import rls_update


def test_update_by_hand() -> None:
    p = rls_update(torch.eye(2), torch.tensor([1.0, 0.0]), 0.1)
    torch.testing.assert_close(p, torch.diag(torch.tensor([1 / 11, 1.0])))
    gradient = torch.tensor([[1.0, 1.0], [2.0, -1.0]]) @ p.T
    torch.testing.assert_close(gradient, torch.tensor([[1 / 11, 1.0], [2 / 11, -1.0]]))
    p = rls_update(p, torch.tensor([0.6, 0.8]), 0.1)
    expected = torch.tensor([[0.087059, -0.056471], [-0.056471, 0.171765]])
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-6)


def test_p_stays_a_shrinking_positive_definite_matrix() -> None:
    torch.manual_seed(0)
    p = torch.eye(5, dtype=torch.float64)
    before = torch.ones(5, dtype=torch.float64)
    for r in torch.randn(20, 5, dtype=torch.float64):
        p = rls_update(p, r, 0.05)
        torch.testing.assert_close(p, p.T)
        now = torch.linalg.eigvalsh(p)
        assert (now > 0).all()
        assert (now <= before + 1e-12).all()
        before = now


def test_the_direction_is_forgotten_as_alpha_vanishes() -> None:
    r = torch.tensor([0.6, 0.8])
    lengths = [float((rls_update(torch.eye(2), r, alpha) @ r).norm()) for alpha in (1.0, 0.1, 1e-4)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 1e-3


def test_it_is_the_inverse_of_what_was_seen() -> None:
    torch.manual_seed(0)
    p, seen = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for r in torch.randn(6, 4, dtype=torch.float64):
        p, seen = rls_update(p, r, 0.3), seen + torch.outer(r, r) / 0.3
    torch.testing.assert_close(p, seen.inverse())


def test_p_stays_positive_in_float32_also_where_features_are_large() -> None:
    """The plain difference has eigenvalues of -1e-4 here, and turns gradients round."""
    torch.manual_seed(0)
    mean = 30 * torch.randn(64).relu()
    single, double = torch.eye(64), torch.eye(64, dtype=torch.float64)
    for i in range(400):
        r = (mean + 5 * torch.randn(64)).relu()
        alpha = 0.1 ** (1 + i % 100 / 100)
        single, double = rls_update(single, r, alpha), rls_update(double, r.double(), alpha)
    assert torch.linalg.eigvalsh(single.double()).min() > 0
    torch.testing.assert_close(single.double(), double, rtol=0.05, atol=1e-6)
