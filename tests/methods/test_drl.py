from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.methods.optimization.drl import DRL

Items = list[tuple[dict[str, Tensor], Tensor]]


@pytest.mark.parametrize(
    ("period", "times", "epochs", "events"),
    [(20, 3, 90, [20, 40, 60]), (20, 3, 50, [20, 40]), (15, 2, 30, [15]), (20, 0, 90, [])],
)
def test_when_encoders_are_set_back(period: int, times: int, epochs: int, events: list) -> None:
    method = DRL(period=period, times=times)
    assert [epoch for epoch in range(epochs) if method.due(epoch)] == events


def data(seed: int, count: int = 2) -> Items:
    torch.manual_seed(seed)
    return [({m: torch.randn(8, 3) for m in "abc"[:count]}, torch.arange(8) % 3) for _ in range(3)]


def balanced(method: ev.Method, count: int = 2) -> tuple[ev.Balancer, Any]:
    torch.manual_seed(0)
    nets = {m: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for m in "abc"[:count]}
    model = ev.Multimodal(nets, ev.Concat(dict.fromkeys(nets, 4), 3))
    balancer = ev.Balancer(model, method, task=ev.Classification(), validation=data(2, count))
    sgd = torch.optim.SGD([p for p in balancer.parameters() if p.requires_grad], 0.1, momentum=0.9)
    return balancer, balancer.attach(sgd)


def train(balancer: ev.Balancer, optimizer: Any, epochs: int, count: int = 2) -> None:
    for _ in range(epochs):
        for number, items in enumerate(balancer.epoch(data(1, count)), start=1):
            (balancer(*items) / (1 + number % 2)).backward()
            if number % 2 == 0 or number == 3:
                optimizer.step()
                optimizer.zero_grad()


def event(
    method: DRL, count: int = 2
) -> tuple[dict[str, Tensor], dict[str, Tensor], ev.Balancer, Any]:
    """The state before and after the event that precedes epoch 2, and what it happened to."""
    balancer, optimizer = balanced(method, count)
    train(balancer, optimizer, 2, count)
    before = {name: x.clone() for name, x in balancer.model.state_dict().items()}
    next(balancer.epoch(data(1, count)))
    return before, dict(balancer.model.state_dict()), balancer, optimizer


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_event_touches_the_encoders_parameters_alone(count: int) -> None:
    before, after, balancer, optimizer = event(DRL(period=1, strength=50.0), count)
    parameters = {n for n, _ in balancer.model.encoders.named_parameters(prefix="encoders")}
    changed = {name for name, x in after.items() if not torch.equal(x, before[name])}
    assert changed
    assert changed <= parameters
    assert all("momentum_buffer" in optimizer.state[p] for p in balancer.model.parameters())


def test_weights_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """tanh(3 * 0.25) = 0.635149 and tanh(3 * 0.2) = 0.537050 of the way back."""
    monkeypatch.setattr(DRL, "_gaps", lambda *_: {"a": 0.25, "b": 0.2})
    before, after, _, _ = event(DRL(period=1))
    initial = dict(balanced(DRL())[0].model.state_dict())
    for m, w in {"a": 0.635149, "b": 0.537050}.items():
        name = f"encoders.{m}.0.weight"
        torch.testing.assert_close(after[name], w * initial[name] + (1 - w) * before[name])


def test_an_infinite_gain_gives_the_initial_weights() -> None:
    _, after, _, _ = event(DRL(period=1, strength=1e9))
    fresh, _ = balanced(DRL())
    initial = dict(fresh.model.encoders.named_parameters(prefix="encoders"))
    assert any(torch.equal(after[name], x) and x.abs().sum() > 0 for name, x in initial.items())


def test_options_extend_what_is_set_back() -> None:
    method = DRL(period=1, strength=50.0, blend_buffers=True, reset_optimizer_state=True)
    before, after, balancer, optimizer = event(method)
    changed = {name for name, x in after.items() if not torch.equal(x, before[name])}
    assert any("running_mean" in name for name in changed)
    assert not any(p in optimizer.state for p in balancer.model.encoders.parameters())


def test_statistics_that_encoders_share_stay_as_they_are() -> None:
    trunk, method = nn.BatchNorm1d(3), DRL(blend_buffers=True)
    nets = {m: nn.Sequential(trunk, nn.Linear(3, 4), nn.BatchNorm1d(4)) for m in "ab"}
    model = ev.Multimodal(nets, ev.Concat(dict.fromkeys(nets, 4), 3))
    blended = {id(w) for m in nets for w in method._weights(model, m)}
    assert not blended & {id(x) for x in trunk.state_dict(keep_vars=True).values()}
    assert id(nets["a"][2].running_mean) in blended


def test_zero_gain_and_no_event_are_joint_training() -> None:
    runs = [ev.Joint(), DRL(times=0), DRL(period=1, strength=0.0)]
    trained = []
    for method in runs:
        balancer, optimizer = balanced(method)
        train(balancer, optimizer, 4)
        trained.append(list(balancer.model.state_dict().values()))
    for other in trained[1:]:
        assert all(torch.equal(a, b) for a, b in zip(trained[0], other, strict=True))


def test_it_resumes_in_the_middle_of_an_epoch() -> None:
    straight, optimizer = balanced(DRL(period=1))
    train(straight, optimizer, 4)
    cut, optimizer = balanced(DRL(period=1))
    train(cut, optimizer, 2)
    epoch = cut.epoch(data(1))
    for divisor in (2, 1):
        (cut(*next(epoch)) / divisor).backward()
    optimizer.step()
    optimizer.zero_grad()
    saved, momentum = cut.state_dict(), optimizer.state_dict()  # before anything is seeded again
    again, fresh = balanced(DRL(period=1))
    again.load_state_dict(saved)
    fresh.load_state_dict(momentum)
    for items in again.epoch(data(1)):
        (again(*items) / 2).backward()
        fresh.step()
        fresh.zero_grad()
    train(again, fresh, 1)
    pairs = zip(straight.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"equivox\[bench\]"):
        balanced(DRL())
