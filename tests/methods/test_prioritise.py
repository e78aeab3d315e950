"""Prioritise: the worked example, the mirror of OGM, ties and zero scores."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from equivox import Balancer, Classification, Concat, Joint, Method, Multimodal
from equivox.methods.optimization.ogm_ge import ogm_coefficients
from equivox.methods.optimization.prioritise import Prioritise, priority_coefficients


def scores(*values: float) -> dict[str, Tensor]:
    return {f"m{i}": torch.tensor(value) for i, value in enumerate(values)}


def gradients(method: Method) -> dict[str, Tensor]:
    torch.manual_seed(0)
    net = {m: nn.Linear(3, 4) for m in "ab"}
    model = Multimodal(net, Concat(dict.fromkeys(net, 4), 3))
    balancer = Balancer(model, method, task=Classification())
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    inputs = {"a": 4 * torch.eye(3).repeat(4, 1), "b": torch.randn(12, 3)}
    balancer(inputs, torch.arange(12) % 3).backward()
    optimizer.step()
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def test_the_worked_example() -> None:
    k = priority_coefficients(scores(60.0, 20.0), alpha=0.3)
    assert k["m0"] == 1
    assert k["m1"].item() == pytest.approx(0.283702, abs=1e-6)


def test_it_damps_whom_ogm_would_leave_alone() -> None:
    mine = priority_coefficients(scores(0.6, 0.2), alpha=0.3)
    ogm = ogm_coefficients(scores(0.2, 0.6), alpha=0.3)
    for name, k in mine.items():
        torch.testing.assert_close(k, ogm[name])


def test_permuting_the_modalities_permutes_k() -> None:
    values = (0.5, 0.3, 0.9)
    expected = priority_coefficients(scores(*values), alpha=0.5)
    for order in permutations(range(3)):
        found = priority_coefficients(scores(*(values[i] for i in order)), alpha=0.5)
        assert [found[f"m{j}"] for j in range(3)] == [expected[f"m{i}"] for i in order]


def test_ties_and_zero_scores() -> None:
    assert all(k == 1 for k in priority_coefficients(scores(0.4, 0.4, 0.4), alpha=1.0).values())
    assert all(k == 1 for k in priority_coefficients(scores(0.0, 0.0), alpha=1.0).values())
    assert priority_coefficients(scores(0.4, 0.0), alpha=1.0)["m1"] == 0
    assert priority_coefficients(scores(0.4, 0.0), alpha=0.0)["m1"] == 1


def test_alpha_zero_is_joint_training_and_weights_alone_are_damped() -> None:
    joint, neutral = gradients(Joint()), gradients(Prioritise(alpha=0.0))
    assert all(torch.equal(neutral[name], g) for name, g in joint.items())
    damped = gradients(Prioritise(alpha=0.5))
    changed = {name for name, g in joint.items() if not torch.equal(damped[name], g)}
    assert changed in ({"encoders.a.weight"}, {"encoders.b.weight"})


def test_outside_its_epochs_and_with_noise() -> None:
    joint = gradients(Joint())
    late = gradients(Prioritise(starts=1))
    assert all(torch.equal(late[name], g) for name, g in joint.items())
    noisy, quiet = gradients(Prioritise(noise=True)), gradients(Prioritise())
    assert not torch.equal(noisy["encoders.a.weight"], quiet["encoders.a.weight"])
