from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.methods.optimization.reconboost import ReconBoost, boosting_loss

Items = list[tuple[dict[str, Tensor], Tensor]]


def test_by_hand() -> None:
    f = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    phi, y = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0])
    loss = boosting_loss(f, phi, y, ev.Classification())
    assert loss.item() == pytest.approx(0.880117, abs=1e-6)
    loss.sum().backward()
    expected = torch.tensor([[-0.676526, 0.338263, 0.338263]])
    torch.testing.assert_close(f.grad, expected, rtol=0, atol=1e-6)
    agreement = (f.softmax(-1) - phi.softmax(-1)).square().mean()
    assert agreement.item() == pytest.approx(0.088416, abs=1e-6)


def test_without_the_others_it_is_scaled_cross_entropy() -> None:
    torch.manual_seed(0)
    f, phi, y = torch.randn(8, 4), torch.randn(8, 4), torch.arange(8) % 4
    found = boosting_loss(f, phi, y, ev.Classification(), w1=5.0, w2=0.0)
    torch.testing.assert_close(found, 5 / 4 * F.cross_entropy(f, y, reduction="none"))


def test_weights_fall_with_what_the_others_know() -> None:
    f, y = torch.zeros(21, 3), torch.zeros(21, dtype=torch.long)
    phi = F.one_hot(y, 3) * torch.linspace(-20, 20, 21)[:, None]
    each = F.cross_entropy(f, y, reduction="none") / 3
    weights = boosting_loss(f, phi, y, ev.Classification()) / each
    assert ((weights >= 4 - 1e-5) & (weights <= 5 + 1e-5)).all()
    assert (weights.diff() <= 0).all()


def test_regression_fits_the_residual_and_labels_are_weighted_each() -> None:
    f, phi, y = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([3.0])
    found = boosting_loss(f, phi, y, ev.Regression(1))
    torch.testing.assert_close(found, torch.tensor([(1 - (3 - 0.2 * 2)) ** 2]))
    f, phi, y = torch.zeros(1, 2), torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    found = boosting_loss(f, phi, y, ev.MultiLabel(2))
    torch.testing.assert_close(found, 4.5 * torch.tensor(2.0).log().view(1))


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
    with pytest.raises(ValueError, match="`w1`"):
        ReconBoost(w1=1.0, w2=2.0)
    with pytest.raises(ValueError, match="`modality_epochs`"):
        ReconBoost(modality_epochs=0)
    with pytest.raises(ValueError, match="`order`"):
        balanced(ReconBoost(order=("a", "x")))
