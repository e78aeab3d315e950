"""CRMT: the worked example, invariances, what the second phase moves, the certificate."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equivox import Balancer, Classification, Concat, MultiLabel, Multimodal, Regression
from equivox.functional.certificate import (
    certified_radius,
    input_slopes,
    margin_loss,
    row_normalised,
)
from equivox.methods.objective.crmt import CRMT
from equivox.modules.certified import CertifiedFusion
from equivox.testing import Problem
from equivox.testing.problem import sgd, state, steps

FEATURES = {
    "a": torch.tensor([[1, 0.5, -0.5], [0, 1, 0.5]]),
    "v": torch.tensor([[0.2, -0.1, 0.4], [0.3, 0.4, -0.2]]),
}
RAW = {
    "a": torch.tensor([[1.0, 0, 2], [0, 3, -1], [2, 1, 0]]),
    "v": torch.tensor([[0.0, 1, 1], [2, 0, 1], [1, -1, 3]]),
}
Y = torch.tensor([0, 2])
TAU = torch.tensor([[1, 2, 1.5], [0.5, 1, 2]])


def head() -> CertifiedFusion:
    fusion = CertifiedFusion({"a": 3, "v": 3}, 3)
    with torch.no_grad():
        for m, raw in RAW.items():
            fusion.raw[m].copy_(raw)
        fusion.bias.copy_(torch.tensor([0, 0.1, -0.1]))
    return fusion


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-6, rtol=0)


def test_rows_by_hand() -> None:
    rows = row_normalised(RAW["a"])
    expected = [
        [0, -0.707107, 0.707107],
        [-0.226455, 0.792594, -0.566139],
        [0.707107, 0, -0.707107],
    ]
    close(rows, expected)
    close(rows.mean(1), [0.0, 0, 0])
    close(rows.norm(dim=1), [1.0, 1, 1])


def test_logits_by_hand() -> None:
    parts = head().parts(FEATURES)
    close(parts["a"], [[-0.707107, 0.452911, 1.060660], [-0.353553, 0.509525, -0.353553]])
    close(parts["v"], [[-0.040825, 0.212132, 0.353553], [-0.163299, -0.070711, -0.424264]])
    close(head()(FEATURES), [[-0.074793, 0.166504, 0.041421], [-0.051685, 0.143881, -0.177782]])


def test_loss_by_hand() -> None:
    fusion = head()
    margins = margin_loss(list(fusion.parts(FEATURES).values()), Y)
    close(margins.exp() - 1e-5, [11.819037, 6.092747])
    close(margins.mean(), 2.138407)
    cross = F.cross_entropy(fusion(FEATURES), Y)
    close(cross, 1.239670)
    close(cross + 2 * margins.mean(), 5.516483)


def radii(fusion: CertifiedFusion) -> Tensor:
    h = torch.stack(list(fusion.parts(FEATURES).values()))
    scales = torch.stack(list(fusion.scales.values()))
    return certified_radius(h, scales, fusion.bias, TAU, Y)


def test_radius_by_hand() -> None:
    close(radii(head()), [-0.719410, -0.697785])
    close(-radii(head()).mean(), 0.708598)


def test_scale_and_shift_of_raw_weights_change_nothing() -> None:
    fusion, changed = head(), head()
    with torch.no_grad():
        changed.raw["a"].mul_(3).add_(0.7)
    torch.testing.assert_close(changed(FEATURES), fusion(FEATURES))


def test_orthogonal_rows() -> None:
    torch.manual_seed(0)
    rows = row_normalised(torch.randn(3, 7), orthogonal=True)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.mean(1), torch.zeros(3), atol=1e-6, rtol=0)


def test_large_logits_stay_finite() -> None:
    h = torch.tensor([[500.0, -500, 0]], requires_grad=True)
    loss = margin_loss([h, h], torch.tensor([1]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert h.grad is not None and h.grad.isfinite().all()


def test_no_slope_gives_a_finite_gradient() -> None:
    scales = torch.zeros(1, 2, requires_grad=True)
    h, target = torch.ones(1, 1, 2), torch.tensor([0])
    certified_radius(h, scales, torch.zeros(2), torch.ones(1, 2), target).sum().backward()
    assert scales.grad is not None and scales.grad.isfinite().all()


def test_multi_label_against_zero() -> None:
    h, target = torch.tensor([[1.0, -2.0]]), torch.tensor([[1, 0]])
    expected = torch.stack([torch.tensor(1.0), torch.tensor(2.0)]).neg().exp().add(1e-5).log()
    torch.testing.assert_close(margin_loss([h], target)[0], expected.mean())
    one = torch.ones(1, 2)
    assert certified_radius(h[None], one, torch.zeros(2), 2 * one, target).item() == 0.75


def test_labels_may_be_floating() -> None:
    found = []
    for cast in (torch.long, torch.float32):
        problem = Problem(task="MultiLabel")
        balancer = problem.balancer(CRMT())
        sgd(balancer)
        inputs, target, index = next(balancer.epoch(problem.loader()))
        found.append(balancer(inputs, target.to(cast), index).item())
    assert found[0] == pytest.approx(found[1])


def test_without_margin_it_is_cross_entropy_of_the_head() -> None:
    problem = Problem()
    balancer = problem.balancer(CRMT(rho=0.0))
    sgd(balancer)
    batches = balancer.epoch(problem.loader())
    inputs, target, index = next(batches)
    loss = balancer(inputs, target, index)
    assert loss.item() == F.cross_entropy(balancer.model(inputs).logits, target).item()


def test_second_phase_moves_the_scales_alone() -> None:
    problem = Problem(modalities=3)
    balancer = problem.balancer(CRMT(starts=1, lr=0.01))
    optimizer = sgd(balancer)
    for _ in steps(balancer, optimizer, problem.loader()):
        pass
    before = state(balancer)
    for _ in steps(balancer, optimizer, problem.loader()):
        pass
    after = state(balancer)
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    scales = {f"model.fusion.scales.{m}" for m in balancer.model.modalities}
    assert changed == scales | {"method.lipschitz", "method.velocity"}


def test_second_phase_widens_the_radius() -> None:
    for seed in range(3):
        problem = Problem()
        balancer = problem.balancer(CRMT(starts=0, lr=1e-3, weight_decay=0.0))
        torch.manual_seed(seed)
        whole = problem.loader(batch=len(problem.data()))
        losses = [loss.item() for loss in steps(balancer, sgd(balancer), whole, 5)]
        assert losses[-1] < losses[0]


def test_slopes_of_a_linear_model_are_exact() -> None:
    torch.manual_seed(0)
    net: dict[str, nn.Module] = {"a": nn.Linear(3, 4), "v": nn.Linear(5, 6)}
    model = Multimodal(net, Concat({"a": 4, "v": 6}, 3))
    balancer = Balancer(model, CRMT(starts=0), task=Classification())
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    inputs = {"a": torch.randn(8, 3), "v": torch.randn(8, 5)}
    next(iter(balancer.epoch([(inputs, torch.arange(8) % 3)])))
    fusion: Any = model.fusion
    for i, m in enumerate(net):
        exact = (row_normalised(fusion.raw[m]) @ net[m].weight).norm(dim=1)
        torch.testing.assert_close(balancer.method.lipschitz[i], exact)


def test_certificate_holds_for_linear_encoders() -> None:
    """No perturbation shorter than r turns a right answer into a wrong one."""
    torch.manual_seed(1)
    h, scales = torch.randn(2, 50, 3), torch.rand(2, 3)
    weights = torch.randn(2, 3, 4)
    tau = weights.norm(dim=2)
    y = (scales[:, None] * h).sum(0).argmax(1)
    r = certified_radius(h, scales, torch.zeros(3), tau, y)
    assert (r > 0).all()
    for _ in range(50):
        shift = torch.randn(2, 50, 4)
        shift *= 0.999 * r[:, None] / shift.square().sum((0, 2)).sqrt()[:, None]
        moved = h + torch.einsum("mbd,mkd->mbk", shift, weights)
        j = (scales[:, None] * h).sum(0).scatter(1, y[:, None], -torch.inf).argmax(1)
        f = (scales[:, None] * moved).sum(0)
        assert (f.gather(1, y[:, None]) > f.gather(1, j[:, None])).all()


def test_second_phase_resumes_in_its_middle() -> None:
    problem = Problem()
    balancer = problem.balancer(CRMT(starts=0, lr=0.1))
    optimizer = sgd(balancer)
    running = steps(balancer, optimizer, problem.loader())
    next(running)
    saved = copy.deepcopy(balancer.state_dict())
    moments = copy.deepcopy(optimizer.state_dict())
    for _ in running:
        pass
    again = problem.balancer(CRMT(starts=0, lr=0.1))
    other = sgd(again)
    again.load_state_dict(saved)
    other.load_state_dict(moments)
    for _ in steps(again, other, problem.loader()):
        pass
    for key, value in state(balancer).items():
        assert torch.equal(state(again)[key], value), key


def test_integer_inputs_are_refused_in_phase_two() -> None:
    net: dict[str, nn.Module] = {"a": nn.Embedding(5, 4), "v": nn.Linear(5, 6)}
    model = Multimodal(net, Concat({"a": 4, "v": 6}, 3))
    balancer = Balancer(model, CRMT(starts=0), task=Classification())
    inputs = {"a": torch.arange(4), "v": torch.randn(4, 5)}
    with pytest.raises(ValueError, match="no floating tensor"):
        next(iter(balancer.epoch([(inputs, torch.arange(4) % 3)])))


@pytest.mark.parametrize(
    "arguments", [{"rho": -1.0}, {"starts": -1}, {"lr": -1.0}, {"lipschitz_batches": 0}]
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="should be"):
        CRMT(**arguments)


def test_tasks() -> None:
    Problem(task="MultiLabel").balancer(CRMT())
    assert MultiLabel.__name__ in CRMT.tasks
    with pytest.raises(ValueError, match="is defined for"):
        Problem(task="Regression").balancer(CRMT())
    assert Regression.__name__ not in CRMT.tasks


def test_a_tensor_that_the_encoder_does_not_use_has_no_slope() -> None:
    given = {"x": torch.ones(2, 1), "time": torch.ones(2, 1)}
    found = input_slopes(lambda x: 3 * x["x"], given)
    assert torch.equal(found, torch.full((2, 1), 3.0))


def test_a_modality_that_is_declared_absent_has_no_slope_whatever_stands_there() -> None:
    problem = Problem()
    batches = [tuple(batch) for batch in problem.loader()]
    inputs, *rest = batches[0]
    batches[0] = ({**inputs, "present": {"video": False}}, *rest)
    balancer = problem.balancer(CRMT(starts=1))
    optimizer = sgd(balancer)
    for loss in steps(balancer, optimizer, batches, epochs=2):  # type: ignore[arg-type]
        assert loss.isfinite()
