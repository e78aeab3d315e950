"""Unimodal initialisation: the encoders come from training alone, and stay or go on."""

from __future__ import annotations

import pytest
import torch

from equivox import Joint
from equivox.methods.yardstick.alone import trained_alone
from equivox.methods.yardstick.unimodal_init import UnimodalInit
from equivox.run import Run
from equivox.testing.problem import Problem, sgd, steps


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("task", ["Classification", "MultiLabel", "Regression"])
def test_frozen_encoders_are_those_trained_alone(task: str, modalities: int) -> None:
    problem = Problem(modalities=modalities, task=task)
    plain = problem.balancer(Joint())
    sgd(plain)
    expected = dict(trained_alone(Run(plain, problem.loader()), epochs=3))
    balancer = problem.balancer(UnimodalInit(alone_epochs=3))
    fusion = balancer.model.fusion.linear.weight.detach().clone()
    for _ in steps(balancer, sgd(balancer), problem.loader(), epochs=2):
        pass
    for name, fork in expected.items():
        ours = balancer.model.encoders[name].state_dict()
        theirs = fork.balancer.model.encoders[name].state_dict()
        assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert not torch.equal(balancer.model.fusion.linear.weight, fusion)
    assert all(p.grad is None for p in balancer.model.encoders.parameters())


def test_without_freezing_everything_learns_from_there() -> None:
    problem = Problem()
    frozen, free = (problem.balancer(UnimodalInit(freeze=f, alone_epochs=2)) for f in (True, False))
    for balancer in (frozen, free):
        first = next(steps(balancer, sgd(balancer), problem.loader()))
        assert first.isfinite()
    ours, theirs = (b.model.encoders["audio"][0].weight for b in (free, frozen))
    assert not torch.equal(ours, theirs)
    # one step of learning rate 0.1 away from the same initialisation
    assert (ours - theirs).norm() < 0.5 * (
        ours - problem.model().encoders["audio"][0].weight
    ).norm()


def test_encoders_are_trained_once() -> None:
    problem = Problem()
    balancer = problem.balancer(UnimodalInit(alone_epochs=1))
    weight = balancer.model.encoders["audio"][0].weight
    training = steps(balancer, sgd(balancer), problem.loader(), epochs=2)
    kept = [weight.detach().clone() for _ in training]
    assert all(torch.equal(w, kept[0]) for w in kept)


def test_negative_epochs_are_refused() -> None:
    with pytest.raises(ValueError, match="`alone_epochs` should be zero or more"):
        UnimodalInit(alone_epochs=-1)
