"""G-Blend: the blended loss, the schedule, and probes that leave no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from equivox import Balancer, Joint
from equivox.functional.blending import gain_per_overfitting
from equivox.methods.objective.gradient_blending import GradientBlending
from equivox.run import Run
from equivox.testing.problem import Problem, sgd, state, steps


@pytest.mark.parametrize("heads", ["own", "split"])
@pytest.mark.parametrize("task", ["Classification", "MultiLabel", "Regression"])
def test_the_loss_is_the_blend(task: str, heads: str) -> None:
    problem = Problem(modalities=3, task=task)
    given = {"audio": 0.1, "video": 0.2, "joint": 0.7}
    balancer = problem.balancer(GradientBlending(weights=given, heads=heads))
    sgd(balancer)
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
        sgd(balancer)
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
    expected = gain_per_overfitting(before.unsqueeze(0), values().unsqueeze(0))
    next(iter(balancer.epoch(problem.loader())))
    torch.testing.assert_close(balancer.method.raw[:1], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"mode": "offline", "probe_epochs": 7}, {0: 7}),
        ({"mode": "online", "warmup": 3, "super_epoch": 2}, {0: 3, 3: 2, 5: 2, 7: 2}),
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
