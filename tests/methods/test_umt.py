"""UMT: the worked example, the teachers, and the limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from equivox import Balancer, Classification, Concat, Joint, Multimodal
from equivox.methods.objective.umt import UMT, feature_distance
from equivox.testing.problem import Problem, sgd, state, steps

F_ = [[1.0, 2.0], [0.0, 1.0]]
T_ = [[0.0, 2.0], [1.0, 3.0]]


def normalised() -> Multimodal:
    """Encoders with batch norm and dropout."""
    torch.manual_seed(0)
    net = {
        m: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU())
        for m in ("audio", "video")
    }
    return Multimodal(net, Concat(dict.fromkeys(net, 5), 3))


def bound(method: UMT, lr: float = 0.1) -> Balancer:
    balancer = Balancer(normalised(), method, task=Classification())
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=lr, momentum=0.9, weight_decay=0.1))
    return balancer


def test_the_worked_example() -> None:
    f, t = torch.tensor(F_, requires_grad=True), torch.tensor(T_, requires_grad=True)
    term = 50 * feature_distance(f, t)
    term.backward()
    assert term.item() == 75
    assert torch.equal(f.grad, torch.tensor([[25.0, 0.0], [-25.0, -50.0]]))
    assert t.grad is None


def test_padding_does_not_count() -> None:
    f, t = torch.tensor(F_).unsqueeze(0), torch.tensor(T_).unsqueeze(0)
    mask = torch.tensor([[False, False, True]])
    rest = torch.full((1, 1, 2), 9.0)
    padded = feature_distance((torch.cat([f, rest], 1), mask), (torch.cat([t, -rest], 1), mask))
    assert padded.item() == 1.5


@pytest.mark.parametrize("distance", ["mse", "l1", "smooth_l1"])
def test_distances_vanish_for_equal_features(distance: str) -> None:
    assert feature_distance(torch.tensor(F_), torch.tensor(F_), distance) == 0


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("task", ["Classification", "MultiLabel", "Regression"])
def test_the_loss_is_the_task_and_the_sum_over_modalities(task: str, modalities: int) -> None:
    problem = Problem(modalities=modalities, task=task)
    balancer = problem.balancer(UMT(lambda_task=0.5, lambda_distill=3.0, teacher_epochs=1))
    sgd(balancer)
    batches = balancer.epoch(problem.loader())
    inputs, target, index = next(batches)
    output = balancer.model(inputs)
    teachers = balancer.method.teachers.encode(inputs)
    parts = [(z - teachers[m]).square().mean() for m, z in output.features.items()]
    assert all(part > 0 for part in parts)
    expected = 0.5 * balancer.task.loss(output.logits, target) + 3 * torch.stack(parts).sum()
    torch.testing.assert_close(balancer(inputs, target, index), expected)


def test_teachers_draw_nothing_and_stay_as_they_are() -> None:
    balancer = bound(UMT(teacher_epochs=1))
    loader = Problem().loader()
    teachers: dict[str, Any] = {}
    for number, (inputs, target, index) in enumerate(balancer.epoch(loader)):
        if number == 0:
            teachers = {k: v.clone() for k, v in balancer.method.teachers.state_dict().items()}
        torch.manual_seed(number)
        with torch.no_grad():
            balancer(inputs, target, index)
        balancer.progress.forwards -= 1
        after = torch.get_rng_state()
        torch.manual_seed(number)
        balancer.model(inputs)
        assert torch.equal(after, torch.get_rng_state())
    for _ in steps(balancer, balancer.optimizer, loader):
        pass
    found = balancer.method.teachers.state_dict()
    assert all(torch.equal(v, teachers[k]) for k, v in found.items())
    assert not balancer.method.teachers.training
    held = {id(p) for p in balancer.optimizer.state}
    assert not held & {id(p) for p in balancer.method.teachers.parameters()}


def test_students_that_start_as_their_teachers_have_no_distance() -> None:
    balancer = bound(UMT(init="teacher", teacher_epochs=2))
    inputs = next(iter(balancer.epoch(Problem().loader())))[0]
    balancer.eval()
    teachers = balancer.method.teachers.encode(inputs)
    for name, z in balancer.model.encode(inputs).items():
        assert torch.equal(z, teachers[name])


def test_teachers_learn_alone_and_students_start_from_scratch() -> None:
    balancer = bound(UMT(teacher_epochs=2))
    before = state(balancer)
    next(iter(balancer.epoch(Problem().loader())))
    after = state(balancer)
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert changed
    assert all(k.startswith("method.teachers.encoders.") for k in changed)


def test_ready_teachers_are_kept_and_survive_a_checkpoint() -> None:
    balancer = bound(UMT(teacher_epochs=0))
    balancer.method.teachers.encoders.load_state_dict(normalised().encoders.state_dict())
    with torch.no_grad():
        balancer.method.teachers.encoders["audio"][0].weight.fill_(7.0)
    next(iter(balancer.epoch(Problem().loader())))
    other = bound(UMT(teacher_epochs=0))
    other.load_state_dict(balancer.state_dict())
    assert (other.method.teachers.encoders["audio"][0].weight == 7).all()


def test_outside_its_window_it_is_joint_training() -> None:
    problem = Problem()
    found = []
    for method in (UMT(starts=5, teacher_epochs=1), Joint()):
        balancer = problem.balancer(method)
        for _ in steps(balancer, sgd(balancer), problem.loader(), 2):
            pass
        found.append(state(balancer))
    assert all(torch.equal(found[0][k], v) for k, v in found[1].items())


def test_a_fraction_of_the_loss_is_distillation() -> None:
    problem = Problem()
    balancer = problem.balancer(UMT(fraction=0.3, teacher_epochs=1))
    sgd(balancer)
    inputs, target, index = next(iter(balancer.epoch(problem.loader())))
    joint = balancer.task.loss(balancer.model(inputs).logits, target)
    torch.testing.assert_close(balancer(inputs, target, index), joint)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lambda_task": -1.0},
        {"lambda_distill": -1.0},
        {"distance": "l3"},
        {"init": "best"},
        {"teacher_epochs": -1},
        {"fraction": 1.0},
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` should"):
        UMT(**arguments)


@pytest.mark.parametrize("arguments", [{"lambda_distill": 0.0}, {"ends": -1}])
def test_the_weight_of_the_task_holds_where_nothing_is_distilled(arguments: dict[str, Any]) -> None:
    problem = Problem()
    batch = next(iter(problem.loader()))
    plain = problem.balancer(Joint())(*batch)
    balancer = problem.balancer(UMT(lambda_task=0.1, teacher_epochs=0, **arguments))
    sgd(balancer)
    torch.testing.assert_close(balancer(*next(iter(balancer.epoch([batch])))), 0.1 * plain)
