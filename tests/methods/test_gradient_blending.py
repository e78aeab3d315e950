"""G-Blend: the worked example, the guards, the schedule, and probes that leave no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from equivox import Balancer, Joint
from equivox.methods.objective.gradient_blending import GradientBlending, blend, raw_weights
from equivox.run import Run
from equivox.testing.problem import Problem, sgd, state, steps

# (audio, visual, joint), each (training, hold-out)
BEFORE = torch.tensor([[1.20, 1.30], [1.60, 1.70], [1.40, 1.50]])
AFTER = torch.tensor([[0.40, 1.00], [1.00, 1.20], [0.50, 1.00]])
WEIGHTS = torch.tensor([0.022089, 0.920387, 0.057524])


def test_the_worked_example() -> None:
    raw = raw_weights(BEFORE, AFTER)
    torch.testing.assert_close(raw, torch.tensor([1.2, 50.0, 3.125]), rtol=1e-4, atol=0)
    torch.testing.assert_close(blend(raw), WEIGHTS, rtol=1e-4, atol=0)
    assert (WEIGHTS @ torch.tensor([0.9, 1.1, 0.7])).item() == pytest.approx(1.072572, abs=1e-5)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_a_common_factor_of_the_losses_changes_nothing(factor: float) -> None:
    raw = raw_weights(factor * BEFORE, factor * AFTER)
    torch.testing.assert_close(raw, raw_weights(BEFORE, AFTER) / factor, rtol=1e-3, atol=0)
    torch.testing.assert_close(blend(raw), WEIGHTS, rtol=1e-3, atol=0)


def test_permuting_the_losses_permutes_the_weights() -> None:
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        blend(raw_weights(BEFORE[order], AFTER[order])), blend(raw_weights(BEFORE, AFTER))[order]
    )


def test_no_overfitting_gives_a_finite_weight() -> None:
    before, after = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.8, 0.8]])
    assert raw_weights(before, after).item() == pytest.approx(2e7, rel=1e-4)


def test_without_any_gain_the_weights_are_uniform() -> None:
    raw = raw_weights(AFTER, BEFORE)
    assert (raw == 0).all()
    torch.testing.assert_close(blend(raw), torch.full((3,), 1 / 3))
    assert (raw_weights(AFTER, BEFORE, sign="abs") > 0).all()


def test_end_values_instead_of_differences() -> None:
    after = torch.tensor([[0.5, 1.0], [1.0, 0.9]])
    found = raw_weights(torch.zeros(2, 2), after, delta=False)
    torch.testing.assert_close(found, torch.tensor([1.0 / 0.25, 0.9 / 1e-8]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("w_max", [0.4, 0.6, 0.95])
def test_an_upper_limit(w_max: float) -> None:
    capped = blend(torch.tensor([1.2, 50.0, 3.125]), w_max)
    assert capped.max().item() == pytest.approx(min(w_max, 0.920387), rel=1e-4)
    assert capped.sum().item() == pytest.approx(1)
    assert capped.argsort().tolist() == [0, 2, 1]


@pytest.mark.parametrize("heads", ["own", "split"])
@pytest.mark.parametrize("task", ["Classification", "MultiLabel", "Regression"])
def test_the_loss_is_the_blend(task: str, heads: str) -> None:
    problem = Problem(modalities=3, task=task)
    given = {"audio": 0.1, "video": 0.2, "joint": 0.7}
    balancer = problem.balancer(GradientBlending(weights=given, heads=heads))
    inputs, target, _ = next(iter(balancer.epoch(problem.loader())))
    output = balancer.model(inputs)
    said = dict(output.unimodal if heads == "own" else output.split) | {"joint": output.logits}
    expected = sum(w * balancer.task.loss(said[name], target) for name, w in given.items())
    torch.testing.assert_close(balancer(inputs, target), expected)


def test_with_the_joint_weight_alone_the_heads_get_zero_gradient() -> None:
    problem = Problem()
    inputs, target, index = next(iter(problem.loader()))
    balancers = [problem.balancer(m) for m in (GradientBlending(weights={"joint": 1.0}), Joint())]
    for balancer in balancers:
        next(iter(balancer.epoch(problem.loader())))
        balancer.clear_queue()
        balancer(inputs, target, index).backward()
    blended, joint = (dict(b.model.named_parameters()) for b in balancers)
    assert all(torch.equal(blended[k].grad, p.grad) for k, p in joint.items())
    assert all((p.grad == 0).all() for k, p in blended.items() if k.startswith("heads."))


def test_probes_leave_no_trace() -> None:
    problem = Problem(random=True)
    balancer = problem.balancer(GradientBlending(probe_epochs=2))
    optimizer = sgd(balancer)
    for _ in steps(balancer, optimizer, problem.loader()):
        pass
    before, moments = state(balancer), copy.deepcopy(optimizer.state_dict())
    run = Run(balancer, problem.loader())
    run.number = 0
    draws = torch.get_rng_state()
    run._measure(balancer.method.prepare)
    assert torch.equal(torch.get_rng_state(), draws)
    after = state(balancer)
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert changed <= {"method.raw", "method.blend_weights"}
    for key, kept in moments["state"].items():
        found = optimizer.state_dict()["state"][key]["momentum_buffer"]
        assert torch.equal(found, kept["momentum_buffer"])


def test_a_probe_of_one_modality_by_hand() -> None:
    """The first raw weight equals that of a plain loop over one encoder and its head."""
    problem = Problem()
    balancer = problem.balancer(GradientBlending(probe_epochs=2))
    sgd(balancer)
    encoder, head = balancer.model.encoders["audio"], balancer.model.heads["audio"]
    net = copy.deepcopy(torch.nn.Sequential(encoder, head))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    def values() -> torch.Tensor:
        means = []
        for loader in (problem.loader(), balancer.validation):
            with torch.no_grad():
                rows = [F.cross_entropy(net(x["audio"]), y, reduction="none") for x, y, _ in loader]
            means.append(torch.cat(rows).mean())
        return torch.stack(means)

    before = values()
    for _ in range(2):
        for x, y, _ in problem.loader():
            optimizer.zero_grad()
            F.cross_entropy(net(x["audio"]), y).backward()
            optimizer.step()
    expected = raw_weights(before.unsqueeze(0), values().unsqueeze(0))
    next(iter(balancer.epoch(problem.loader())))
    torch.testing.assert_close(balancer.method.raw[:1], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"mode": "offline", "probe_epochs": 7}, {0: 7}),
        ({"mode": "online", "warm_up": 3, "super_epoch": 2}, {0: 3, 3: 2, 5: 2, 7: 2}),
    ],
)
def test_when_probes_run(arguments: dict[str, Any], expected: dict[int, int]) -> None:
    method = GradientBlending(**arguments)
    found = {epoch: n for epoch in range(9) if (n := method._due(epoch))}
    assert found == expected


def test_prediction_does_not_depend_on_the_weights() -> None:
    balancer: Balancer = Problem().balancer(GradientBlending())
    inputs = next(iter(balancer.validation))[0]
    before = balancer.predict(inputs)
    balancer.method.blend_weights.copy_(torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(balancer.predict(inputs), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "always"}, "`mode` should"),
        ({"sign": "square"}, "`sign` should"),
        ({"heads": "any"}, "`heads` should"),
        ({"weights": {"audio": 0.0}}, "not all zero"),
        ({"super_epoch": 0}, "`super_epoch` should be positive"),
        ({"w_max": 0.2}, "`w_max` should be 1/3"),
        ({"weights": {"vidoe": 1.0}}, "Did you mean `video`"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem().balancer(GradientBlending(**arguments))
