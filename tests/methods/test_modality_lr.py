"""Modality learning rates: one group an encoder, and the rest as it was."""

from __future__ import annotations

import pytest
import torch

from equivox import Joint, Method
from equivox.methods.yardstick.modality_lr import ModalityLR
from equivox.testing.problem import Problem, sgd, state, steps


def moved(method: Method) -> dict[str, torch.Tensor]:
    """What one step changes, without momentum or weight decay."""
    problem = Problem(modalities=3)
    balancer = problem.balancer(method)
    before = state(balancer)
    optimizer = sgd(balancer, momentum=0.0, weight_decay=0.0)
    next(steps(balancer, optimizer, problem.loader()))
    return {k: v - before[k] for k, v in state(balancer).items()}


def test_an_encoder_moves_by_its_factor() -> None:
    plain = moved(Joint())
    scaled = moved(ModalityLR(factors={"video": 3.0, "text": 0.0}))
    for name, change in plain.items():
        factor = 3.0 if ".video." in name else 0.0 if ".text." in name else 1.0
        torch.testing.assert_close(scaled[name], factor * change, atol=1e-6, rtol=1e-4)


def test_schedulers_keep_the_ratio() -> None:
    balancer = Problem().balancer(ModalityLR(factors={"video": 3.0}))
    optimizer = sgd(balancer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in steps(balancer, optimizer, Problem().loader()):
        pass
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.15])


def test_unknown_modalities_and_negative_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean `video`"):
        Problem().balancer(ModalityLR(factors={"vidoe": 2.0}))
    with pytest.raises(ValueError, match="zero or more"):
        ModalityLR(factors={"video": -1.0})
