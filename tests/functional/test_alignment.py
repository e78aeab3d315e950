"""Alignment of one weight with several: slopes against autograd, order, orthogonality."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from equivox.functional.alignment import alignment_loss, alignment_pull, cosine_slopes
from equivox.functional.gradients import add_to_gradients_, flat_cosine


def problem(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    balance = {m: torch.randn((), generator=generator) for m in "abc"}
    targets = {m: torch.randn(3, 7, generator=generator) for m in "abc"}
    return balance, targets, [torch.randn(3, n, generator=generator) for n in (4, 3)]


def test_pull_is_the_slope_of_the_loss() -> None:
    balance, targets, parts = problem()
    free = [part.clone().requires_grad_() for part in parts]
    whole = torch.cat(free, 1).flatten()
    cosines = {m: torch.cosine_similarity(t.flatten(), whole, dim=0) for m, t in targets.items()}
    expected = torch.autograd.grad(0.2 * alignment_loss(balance, cosines), free)
    for found, slope in zip(alignment_pull(balance, targets, parts, 0.2), expected, strict=True):
        torch.testing.assert_close(found, slope)


def test_pull_turns_and_never_stretches() -> None:
    balance, targets, parts = problem(1)
    pulls = alignment_pull(balance, targets, parts, 1.0)
    radial = sum((part * pull).sum() for part, pull in zip(parts, pulls, strict=True))
    assert float(radial) == pytest.approx(0.0, abs=1e-6)


def test_pull_does_not_depend_on_order_or_on_the_targets_length() -> None:
    balance, targets, parts = problem(2)
    backwards = {m: balance[m] for m in "cba"}
    longer = {m: 5 * t for m, t in targets.items()}
    pairs = zip(
        alignment_pull(balance, targets, parts, 1.0),
        alignment_pull(backwards, longer, parts, 1.0),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_slopes_of_cosines_of_gradients_are_finite_differences() -> None:
    torch.manual_seed(0)
    layer, own = nn.Linear(2, 3).double(), nn.Linear(2, 3).double()
    x, target = torch.randn(5, 2).double(), torch.tensor([0, 1, 2, 0, 1])

    def loss(of: nn.Linear) -> Tensor:
        return nn.functional.cross_entropy(of(x), target)

    def cosine() -> float:
        gradients = [torch.autograd.grad(loss(of), [of.weight]) for of in (layer, own)]
        return float(flat_cosine(*gradients))

    slopes = cosine_slopes(loss(layer), [layer], {"m": loss(own)}, {"m": own.weight})["m"]
    vector = nn.utils.parameters_to_vector(layer.parameters()).detach()
    for i in range(len(vector)):
        ends = []
        for step in (1e-6, -1e-6):
            moved = vector.clone()
            moved[i] += step
            nn.utils.vector_to_parameters(moved, layer.parameters())
            ends.append(cosine())
        assert float(slopes[i]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def test_only_existing_gradients_are_added_to() -> None:
    first, second = torch.ones(2), torch.ones(2)
    first.grad = torch.zeros(2)
    add_to_gradients_([first, second], [torch.ones(2), torch.ones(2)])
    assert first.grad.tolist() == [1, 1] and second.grad is None
