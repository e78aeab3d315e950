"""AMCo: dependence, masks on features and logits, and when they act."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.functional.dependence import dependence, dependent
from equivox.method import Batch
from equivox.methods.feedforward.amco import AMCo
from equivox.step import Step

AUDIO = torch.tensor([[2.0, 0, 0], [0, 1.5, 0]])
VIDEO = torch.tensor([[0.5, 0, 0], [0, 0, 0.2]])
Y = torch.tensor([0, 1])


def test_worked_shares() -> None:
    shares = dependence({"audio": AUDIO, "video": VIDEO}, ev.Classification())
    means = torch.stack([x.mean() for x in shares.values()])
    torch.testing.assert_close(means, torch.tensor([0.694072, 0.305928]), atol=1e-6, rtol=0)
    assert dependent(means, 0.5).tolist() == [True, False]


@pytest.mark.parametrize("task", [ev.Classification(), ev.MultiLabel(), ev.Regression(3)])
def test_shares_of_a_sample_add_up_to_one(task: ev.Task) -> None:
    for logits in ({"a": AUDIO, "b": VIDEO, "c": -AUDIO}, dict.fromkeys("ab", 0 * AUDIO)):
        total = torch.stack(list(dependence(logits, task).values())).sum(0)
        torch.testing.assert_close(total, torch.ones(2))


@pytest.mark.parametrize("task", [ev.Classification(), ev.MultiLabel()])
def test_shares_belong_to_their_modality(task: ev.Task) -> None:
    logits = {"a": AUDIO, "b": VIDEO, "c": -AUDIO}
    shares = dependence(logits, task)
    turned = dependence(dict(reversed(logits.items())), task)
    for modality, share in shares.items():
        torch.testing.assert_close(turned[modality], share)


def test_one_modality_is_never_masked() -> None:
    assert dependent(torch.tensor([0.3, 0.25, 0.45]), 0.2).tolist() == [True, False, True]
    assert dependent(torch.tensor([1.0]), 0.5).tolist() == [False]


def problem(**options: Any) -> tuple[ev.Balancer, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    names = {"audio": 4, "video": 5}
    encoders = {m: nn.Sequential(nn.Linear(3, w), nn.Tanh()) for m, w in names.items()}
    model = ev.Multimodal(encoders, ev.Concat(names, 3))
    balancer = ev.Balancer(model, AMCo(**options), task=ev.Classification())
    inputs = {m: torch.randn(6, 3) for m in names}
    return balancer, inputs, torch.arange(6) % 3


def total(balancer: ev.Balancer, inputs: dict[str, Tensor], target: Tensor) -> Tensor:
    """The loss of the first batch of an epoch, for the method's flags as they are."""
    step = Step(balancer.model, balancer.task, Batch(inputs, target), 1, torch.Generator())
    step.output = balancer.model(inputs)
    features = balancer.method.features(step.output.features, step)
    logits = step.output.logits = balancer.model.fused(features).logits
    return torch.stack(
        list(balancer.method.losses({"joint": step.loss(logits)}, step).values())
    ).sum()


def multi_loss(balancer: ev.Balancer, inputs: dict[str, Tensor], target: Tensor) -> Tensor:
    output = balancer.model(inputs)
    parts = [output.logits, *output.unimodal.values()]
    return torch.stack([F.cross_entropy(z, target) for z in parts]).sum()


@pytest.mark.parametrize("mask_on", ["feature", "logit"])
def test_without_a_flag_it_is_multi_loss_training(mask_on: str) -> None:
    balancer, inputs, target = problem(epochs=1, mask_on=mask_on)
    assert torch.equal(total(balancer, inputs, target), multi_loss(balancer, inputs, target))
    balancer, inputs, target = problem(p_max=0.0, mask_on=mask_on)
    balancer.method.flags.fill_(True)
    assert torch.equal(total(balancer, inputs, target), multi_loss(balancer, inputs, target))


def test_a_wholly_masked_feature_learns_from_its_own_loss_alone() -> None:
    balancer, inputs, target = problem(epochs=1)  # epoch 1 of 1: the ramp has ended
    balancer.method.flags[0] = True
    total(balancer, inputs, target).backward()
    found = [p.grad for p in balancer.model.encoder_parameters("audio")]
    alone = balancer.model(inputs).unimodal["audio"]
    expected = torch.autograd.grad(
        F.cross_entropy(alone, target), balancer.model.encoder_parameters("audio")
    )
    torch.testing.assert_close(found, list(expected))


def test_worked_loss_with_masked_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    balancer, _, _ = problem(mask_on="logit", epochs=1)
    fusion = ev.Concat({"audio": 3, "video": 3}, 3)
    with torch.no_grad():
        fusion.linear.weight.copy_(torch.cat([torch.eye(3)] * 2, 1))
        fusion.linear.bias.zero_()
    model = ev.Multimodal({"audio": nn.Identity(), "video": nn.Identity()}, fusion)
    inputs = {"audio": AUDIO, "video": VIDEO}
    step = Step(model, ev.Classification(), Batch(inputs, Y), 0, torch.Generator())
    step.output = model(inputs)
    kept = {"audio": torch.tensor([False, True, True]), "video": torch.tensor([True, True, True])}
    monkeypatch.setattr(balancer.method, "_kept", lambda *_: kept)
    found = balancer.method.losses({"joint": step.loss(step.output.logits)}, step)
    expected = {"joint": 0.598473, "audio": 0.304263, "video": 0.982097}
    assert {m: float(x.detach()) for m, x in found.items()} == pytest.approx(expected, abs=1e-6)
    assert balancer.method.flags.tolist() == [True, False]


def test_flags_are_those_of_the_step_before_and_none_at_an_epochs_start() -> None:
    balancer, inputs, target = problem(sigma=0.0, epochs=2)  # all but the smallest are flagged
    met = []
    for _ in range(2):
        for x, y in balancer.epoch([(inputs, target)] * 3):
            met.append(int(balancer.method.flags.sum()))
            balancer(x, y)
    assert met == [0, 1, 1, 0, 1, 1]


def test_progress_goes_on_through_the_epochs() -> None:
    balancer, inputs, target = problem(epochs=2)
    met = []
    for epoch in range(2):
        for x, y in balancer.epoch([(inputs, target)] * 2):
            step = Step(balancer.model, balancer.task, Batch(x, y), epoch, torch.Generator())
            met.append(float(balancer.method._progress(step)))
            balancer(x, y)
    assert met == [0, 0.25, 0.5, 0.75]


def test_logit_masks_need_shares() -> None:
    model = ev.Multimodal({"a": nn.Linear(3, 4)}, ev.Gated({"a": 4}, 3))
    with pytest.raises(ValueError, match="adds up"):
        ev.Balancer(model, AMCo(mask_on="logit"), task=ev.Classification())


@pytest.mark.parametrize(
    "options", [{"epsilon": 0.0}, {"p_max": 2.0}, {"mask_on": "x"}, {"epochs": 0}]
)
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` should"):
        AMCo(**options)
