from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.methods.optimization.reconboost import ReconBoost

Items = list[tuple[dict[str, Tensor], Tensor]]


def balanced(
    method: ReconBoost, count: int = 2, task: ev.Task | None = None, outputs: int = 3
) -> tuple[ev.Balancer, torch.optim.Optimizer]:
    torch.manual_seed(0)
    names = "abc"[:count]
    nets = {m: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2)) for m in names}
    model = ev.Multimodal(nets, ev.Concat(dict.fromkeys(names, 4), outputs))
    balancer = ev.Balancer(model, method, task=task or ev.Classification())
    sgd = torch.optim.SGD(balancer.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    return balancer, balancer.attach(sgd)


def loader(count: int = 2) -> Items:
    torch.manual_seed(1)
    return [({m: torch.randn(6, 3) for m in "abc"[:count]}, torch.arange(6) % 3) for _ in range(4)]


def train(
    balancer: ev.Balancer, optimizer: torch.optim.Optimizer, data: Items, forwards: int = 1
) -> None:
    for number, items in enumerate(balancer.epoch(data), start=1):
        (balancer(*items) / forwards).backward()
        if number % forwards == 0:
            optimizer.step()
            optimizer.zero_grad()


def state(balancer: ev.Balancer) -> dict[str, Tensor]:
    kept = balancer.model.state_dict().items()
    return {name: value.clone() for name, value in kept}


def moved(balancer: ev.Balancer, before: dict[str, Tensor]) -> set[str]:
    """The encoders, and "head" and "boost" of the fusion, that are no longer as before."""
    names = [n for n, value in state(balancer).items() if not torch.equal(value, before[n])]
    return {name.split(".")[1] for name in names}


@pytest.mark.parametrize("forwards", [1, 2])
def test_stages_train_one_modality_after_the_other(forwards: int) -> None:
    method = ReconBoost(modality_epochs=2, joint_epochs=1, hidden=None, pretrained=True)
    balancer, optimizer = balanced(method, count=3)
    expected = [{k, "head"} for k in "aabbcc"]
    for number, alone in enumerate(expected):
        before = state(balancer)
        train(balancer, optimizer, loader(3), forwards)
        assert moved(balancer, before) == alone
        if number % 2:
            before = state(balancer)
            train(balancer, optimizer, loader(3), forwards)
            assert moved(balancer, before) == {"a", "b", "c", "head", "boost"}


def test_modalities_join_with_their_first_stage() -> None:
    balancer, optimizer = balanced(ReconBoost(modality_epochs=1, joint_epochs=1, hidden=None))
    inputs, _ = loader()[0]
    for added in ("a", "a", "ab", "ab"):
        before = state(balancer)
        train(balancer, optimizer, loader())
        assert moved(balancer, before) & {"a", "b"} <= set(added)
        with torch.no_grad():
            balancer.eval()
            said = balancer.model(inputs).split
            balancer.train()
        total = sum(said[m] for m in added)
        torch.testing.assert_close(
            balancer.predict(inputs), balancer.model.fusion.boost.detach() * total
        )


def test_each_phase_starts_without_momentum() -> None:
    balancer, optimizer = balanced(ReconBoost(modality_epochs=1, joint_epochs=1, pretrained=True))
    train(balancer, optimizer, loader())
    assert optimizer.state
    epoch = balancer.epoch(loader())
    next(epoch)
    assert not optimizer.state


def gradients(alpha: float, both: bool) -> list[Tensor]:
    method = ReconBoost(
        alpha=alpha, mcr_detach_both=both, modality_epochs=1, joint_epochs=0, pretrained=True
    )
    balancer, optimizer = balanced(method)
    balancer.model.eval()  # no dropout: the two runs draw differently otherwise
    for number in range(2):  # the second stage is the first with an agreement term
        for items in balancer.epoch(loader()):
            balancer(*items).backward()
            if number:
                return [p.grad for p in balancer.model.parameters() if p.grad is not None]
            optimizer.zero_grad()
    raise AssertionError


def test_released_agreement_has_no_gradient() -> None:
    for plain, released in zip(gradients(0.0, True), gradients(9.0, True), strict=True):
        assert torch.equal(plain, released)
    pairs = zip(gradients(0.0, False), gradients(9.0, False), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_it_resumes_in_the_middle_of_an_epoch() -> None:
    def new() -> tuple[ev.Balancer, torch.optim.Optimizer]:
        return balanced(ReconBoost(modality_epochs=1, joint_epochs=1, hidden=8))

    straight, optimizer = new()
    for _ in range(4):
        train(straight, optimizer, loader())
    cut, optimizer = new()
    for _ in range(2):
        train(cut, optimizer, loader())
    epoch = cut.epoch(loader())
    for _ in range(2):
        cut(*next(epoch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    saved, momentum = cut.state_dict(), optimizer.state_dict()  # before anything is seeded again
    again, fresh = new()
    again.load_state_dict(saved)
    fresh.load_state_dict(momentum)
    for _ in range(2):
        train(again, fresh, loader())
    for name, value in state(straight).items():
        assert torch.equal(value, state(again)[name]), name


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="`w2` should lie in"):
        ReconBoost(w1=1.0, w2=2.0)
    with pytest.raises(ValueError, match="`w1` should be positive"):
        ReconBoost(w1=0.0, w2=0.0)
    with pytest.raises(ValueError, match="`modality_epochs`"):
        ReconBoost(modality_epochs=0)
    for order in (("a", "x"), ("a",), ("a", "b", "a")):
        with pytest.raises(ValueError, match="`order` should hold each"):
            balanced(ReconBoost(order=order))
