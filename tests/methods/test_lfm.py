"""LFM: the worked numbers, the schedules, and the learned weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.functional.divergence import js_divergence, mixture_divergence
from equivox.functional.outcomes import log_probabilities
from equivox.methods.objective.lfm import (
    LFM,
    averaged_logits,
    fitted_weight,
    heuristic_weight,
    hypergradient,
    released_signal,
)
from equivox.testing import Problem
from equivox.testing.problem import sgd, steps

AUDIO = torch.tensor([[2.0, 0, 0], [0, 1, 0]])
VIDEO = torch.tensor([[0.0, 1, 0], [0, 1, 0]])
Y = torch.tensor([0, 1])


def balancer_of(method: LFM) -> ev.Balancer:
    """Linear heads that are identities, averaged: features are the logits."""
    fusion = ev.Sum({"audio": 3, "video": 3}, 3)
    for linear in fusion.linears.values():
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
        linear.weight.data /= 2
    model = ev.Multimodal({"audio": nn.Identity(), "video": nn.Identity()}, fusion)
    return ev.Balancer(model, method, task=ev.Classification())


def loss_with(k: float, **options: Any) -> Tensor:
    balancer = balancer_of(LFM(schedule=k, **options))
    for inputs, target in balancer.epoch([({"audio": AUDIO, "video": VIDEO}, Y)]):
        loss = balancer(inputs, target).detach()
    return loss


def test_worked_alignment() -> None:
    p, q = log_probabilities(AUDIO), log_probabilities(VIDEO)
    assert float(mixture_divergence(p, q).mean()) == pytest.approx(0.109588, abs=1e-6)
    assert float(js_divergence(p, q).mean()) == pytest.approx(0.092875, abs=1e-6)


@pytest.mark.parametrize(("k", "expected"), [(0.05, 1.181087), (0.95, 0.269803)])
def test_worked_loss(k: float, expected: float) -> None:
    assert float(loss_with(k)) == pytest.approx(expected, abs=2e-6)


def test_without_alignment_it_is_twice_the_loss() -> None:
    assert torch.equal(loss_with(0.0), 2 * F.cross_entropy((AUDIO + VIDEO) / 2, Y))


def test_averaged_logits_have_the_fused_ones_as_their_mean() -> None:
    names = {"a": 4, "b": 3, "c": 5}
    for fusion in (ev.Concat(names, 3), ev.Sum(names, 3)):
        model = ev.Multimodal({m: nn.Linear(2, w) for m, w in names.items()}, fusion)
        output = model({m: torch.randn(4, 2) for m in names})
        mean = torch.stack(list(averaged_logits(output).values())).mean(0)
        torch.testing.assert_close(mean, output.logits)


def test_heuristic_weights() -> None:
    found = [heuristic_weight(t - 1) for t in (1, 2, 5, 10, 50, 100)]
    expected = [0.632121, 0.393469, 0.181269, 0.095163, 0.019801, 0.009950]
    assert found == pytest.approx(expected, abs=1e-6)


def test_fitted_weights() -> None:
    found = [fitted_weight(e) for e in (0, 10, 50, 100, 150, 199, 220)]
    expected = [0.204624, 0.247759, 0.436681, 0.539155, 0.821314, 0.915989, 0.322069]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("clamp", "least"), [((0.05, 0.95), 0.05), (None, -0.01035)])
def test_fitted_schedule_is_stretched_and_clamped(
    clamp: tuple[float, float] | None, least: float
) -> None:
    balancer = balancer_of(LFM(schedule="fitted", epochs=100, clamp=clamp))
    met = []
    for _ in range(100):
        for inputs, target in balancer.epoch([({"audio": AUDIO, "video": VIDEO}, Y)]):
            balancer(inputs, target)
            met.append(float(balancer.method.k))
    assert met[0] == pytest.approx(1 - 0.204624, abs=1e-6)
    assert met[50] == pytest.approx(1 - 0.539155, abs=1e-6)
    assert min(met) == pytest.approx(least, abs=1e-4)


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


def test_released_signal_is_a_hessian_vector_product() -> None:
    first, second = (torch.tensor([x], requires_grad=True) for x in (2.0, 3.0))

    def losses() -> tuple[Tensor, Tensor]:
        return (first * second).square().sum(), first.pow(3).sum()

    found = released_signal(losses, [first, second], torch.tensor(0.5))
    # H = ½ [[2 b² + 6 a, 4 a b], …] and g = (2 a b², 2 a² b) at a = 2, b = 3.
    assert float(found) == pytest.approx(0.5 * ((18 + 12) * 36 + 24 * 24))


@pytest.mark.parametrize("schedule", ["learned", "learned_code"])
def test_learned_schedules_move_the_weight_and_leave_the_model(schedule: str) -> None:
    problem = Problem()
    balancer = problem.balancer(LFM(schedule=schedule, rate=50.0))
    optimizer = sgd(balancer)
    before = [p.detach().clone() for p in balancer.model.parameters()]
    batches = balancer.epoch(problem.loader())
    next(batches)
    assert all(torch.equal(p, q) for p, q in zip(balancer.model.parameters(), before, strict=True))
    assert 0.05 <= float(balancer.method.k) <= 0.95
    del batches
    balancer = problem.balancer(LFM(schedule=schedule, rate=50.0))
    optimizer = sgd(balancer)
    assert all(loss.isfinite() for loss in steps(balancer, optimizer, problem.loader(), 3))
    assert float(balancer.method.k) < 0.95


def test_infonce_aligns_the_features() -> None:
    agreeing = loss_with(1.0, alignment="infonce", temperature=1.0)
    assert float(agreeing) > 0
    model = ev.Multimodal(
        {m: nn.Linear(2, w) for m, w in {"a": 2, "b": 3}.items()}, ev.Concat({"a": 2, "b": 3}, 2)
    )
    with pytest.raises(ValueError, match="equally wide"):
        ev.Balancer(model, LFM(alignment="infonce"), task=ev.Classification())


def test_learned_needs_validation_data() -> None:
    with pytest.raises(ValueError, match="held-out"):
        balancer_of(LFM(schedule="learned"))


@pytest.mark.parametrize("options", [{"schedule": "x"}, {"schedule": 2.0}, {"alignment": "x"}])
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="should be"):
        LFM(**options)
