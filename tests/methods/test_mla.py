from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.functional.least_squares import rls_update
from equivox.methods.feedforward.mla import MLA


def balanced(
    method: MLA, task: ev.Task | None = None, count: int = 2, outputs: int = 3
) -> tuple[ev.Balancer, torch.optim.Optimizer]:
    torch.manual_seed(0)
    names = "abc"[:count]
    nets = {m: nn.Sequential(nn.Linear(3, 4 + i), nn.Tanh()) for i, m in enumerate(names)}
    model = ev.Multimodal(nets, ev.Concat({m: 4 + i for i, m in enumerate(names)}, outputs))
    balancer = ev.Balancer(model, method, task=task or ev.Classification())
    sgd = torch.optim.SGD(balancer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    return balancer, balancer.attach(sgd)


def loader(count: int = 2, batches: int = 3) -> list[tuple[dict[str, Tensor], Tensor]]:
    torch.manual_seed(1)
    return [
        ({m: torch.randn(6, 3) for m in "abc"[:count]}, torch.arange(6) % 3) for _ in range(batches)
    ]


def train(
    balancer: ev.Balancer, optimizer: torch.optim.Optimizer, data: list, forwards: int = 1
) -> None:
    for number, items in enumerate(balancer.epoch(data), start=1):
        balancer(*items).backward()
        if number % forwards == 0:
            optimizer.step()
            optimizer.zero_grad()


def weights(balancer: ev.Balancer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in balancer.model.named_parameters()}


@pytest.mark.parametrize("count", [2, 3])
def test_other_encoders_rest_while_one_learns(count: int) -> None:
    balancer, optimizer = balanced(MLA(), count=count)
    turns = []
    for inputs, target in balancer.epoch(loader(count)):
        (modality,) = inputs
        turns.append(modality)
        before = weights(balancer)
        balancer(inputs, target).backward()
        optimizer.step()
        optimizer.zero_grad()
        moved = {n for n, p in weights(balancer).items() if not torch.equal(p, before[n])}
        assert {n.split(".")[1] for n in moved if n.startswith("encoders")} == {modality}
        assert any(n.startswith("fusion.head") for n in moved)
    assert turns == list("abc"[:count]) * 3


def test_released_momentum_moves_the_encoders_before() -> None:
    balancer, optimizer = balanced(MLA(stale_momentum=True))
    epoch = balancer.epoch(loader())
    moved = []
    for _ in range(2):
        before = balancer.model.encoders["a"][0].weight.detach().clone()
        balancer(*next(epoch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        moved.append(not torch.equal(before, balancer.model.encoders["a"][0].weight))
    assert moved == [True, True]


def test_without_projection_it_is_alternating_cross_entropy() -> None:
    balancer, optimizer = balanced(MLA(projection="none"))
    twin, plain = balanced(MLA(projection="none"))
    twin.detach()
    train(balancer, optimizer, loader())
    fusion = twin.model.fusion
    for inputs, target in loader():
        for modality, x in inputs.items():
            features = {modality: twin.model.encoders[modality](x)}
            F.cross_entropy(fusion.unimodal(features)[modality], target).backward()
            plain.step()
            plain.zero_grad()
    for a, b in zip(balancer.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_first_update_is_not_projected_and_the_second_by_the_first_ones_feature() -> None:
    balancer, optimizer = balanced(MLA())
    weight = balancer.model.fusion.head[-1].weight
    epoch = balancer.epoch(loader())
    for number in range(2):
        inputs, target = next(epoch)
        balancer(inputs, target).backward()
        raw = weight.grad.clone()
        (modality,) = inputs
        features = {modality: balancer.model.encoders[modality](inputs[modality])}
        read = balancer.model.fusion.projected(features)[modality].detach().mean(0)
        optimizer.step()
        if number == 0:
            assert torch.equal(weight.grad, raw)
            previous = read
        else:
            p = rls_update(torch.eye(len(previous)), previous, 0.1)
            torch.testing.assert_close(weight.grad, raw @ p.T)
        optimizer.zero_grad()


def test_alpha_falls_within_an_epoch() -> None:
    balancer, _ = balanced(MLA())
    from equivox.run import Run

    batches = [ev.Batch.of(item) for item in loader(batches=4)]
    given = [b.extra for b in balancer.method.epoch(batches, Run(balancer, loader(batches=4)))]
    assert given == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_micro_batches_of_a_modality_come_together() -> None:
    whole, first = balanced(MLA())
    parts, second = balanced(MLA(accumulation=2))
    data = loader(batches=2)
    halves = [
        ({m: x[rows] for m, x in inputs.items()}, target[rows])
        for inputs, target in data
        for rows in (slice(0, 3), slice(3, 6))
    ]
    train(whole, first, data)
    for number, items in enumerate(parts.epoch(halves), start=1):
        (parts(*items) / 2).backward()
        if number % 2 == 0:
            second.step()
            second.zero_grad()
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(whole.method.p, parts.method.p)


@pytest.mark.parametrize("forwards", [1, 2])
def test_it_resumes_in_the_middle_of_an_epoch(forwards: int) -> None:
    straight, optimizer = balanced(MLA())
    train(straight, optimizer, loader(), forwards)
    cut, optimizer = balanced(MLA())
    epoch = cut.epoch(loader())
    for _ in range(2):
        cut(*next(epoch)).backward()
        if forwards == 1:
            optimizer.step()
            optimizer.zero_grad()
    if forwards == 2:
        optimizer.step()
        optimizer.zero_grad()
    again, fresh = balanced(MLA())
    again.load_state_dict(cut.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    train(again, fresh, loader(), forwards)
    for name, value in straight.state_dict().items():
        if not name.endswith("_extra_state"):
            assert torch.equal(value, again.state_dict()[name])


def test_regression_is_weighted_equally_and_fixed_weights_as_given() -> None:
    balancer, _ = balanced(MLA(), ev.Regression(1), outputs=1)
    inputs, _ = loader()[0]
    said = balancer.model(inputs).split
    torch.testing.assert_close(balancer.predict(inputs), (said["a"] + said["b"]) / 2)
    balancer, _ = balanced(MLA(inference="fixed", weights={"a": 0.55, "b": 0.45}))
    said = balancer.model(inputs).split
    torch.testing.assert_close(balancer.predict(inputs), 0.55 * said["a"] + 0.45 * said["b"])


def test_arguments_are_checked() -> None:
    for wrong in ({"projection": "svd"}, {"inference": "mean"}, {"accumulation": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MLA(**wrong)
    with pytest.raises(ValueError, match="`weights`"):
        balanced(MLA(inference="fixed", weights={"a": 1.0}))
