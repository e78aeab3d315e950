"""Unimodal losses: the sum, its limits, and whose gradient is whose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from equivox.methods.yardstick.unimodal_losses import UnimodalLosses
from equivox.testing.problem import Problem, sgd


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("heads", ["own", "split"])
def test_the_loss_is_the_sum(heads: str, modalities: int) -> None:
    problem = Problem(modalities=modalities)
    balancer = problem.balancer(UnimodalLosses(gamma=2.0, heads=heads))
    sgd(balancer)
    inputs, target, _ = next(iter(problem.loader()))
    output = balancer.model(inputs)
    said = output.unimodal if heads == "own" else output.split
    alone = sum(F.cross_entropy(z, target) for z in said.values())
    expected = F.cross_entropy(output.logits, target) + 2 * alone
    torch.testing.assert_close(balancer(inputs, target), expected)
    assert (balancer.model.heads is None) == (heads == "split")


@pytest.mark.parametrize(("task", "heads"), [("Regression", "own"), ("MultiLabel", "split")])
def test_other_tasks(task: str, heads: str) -> None:
    problem = Problem(task=task)
    balancer = problem.balancer(UnimodalLosses(heads=heads))
    sgd(balancer)
    inputs, target, _ = next(iter(problem.loader()))
    output = balancer.model(inputs)
    said = output.unimodal if heads == "own" else output.split
    parts = [balancer.task.loss(z, target) for z in (output.logits, *said.values())]
    torch.testing.assert_close(balancer(inputs, target), torch.stack(parts).sum())


def test_gradients_of_the_encoders_grow_linearly_with_gamma() -> None:
    problem = Problem()
    inputs, target, _ = next(iter(problem.loader()))

    def gradient(gamma: float) -> Any:
        balancer = problem.balancer(UnimodalLosses(gamma=gamma))
        sgd(balancer)
        balancer(inputs, target).backward()
        return balancer.model.encoders["audio"][0].weight.grad

    torch.testing.assert_close(gradient(2.0) - gradient(0.0), 2 * (gradient(1.0) - gradient(0.0)))


@pytest.mark.parametrize("arguments", [{"gamma": -1.0}, {"heads": "any"}])
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` should"):
        UnimodalLosses(**arguments)
