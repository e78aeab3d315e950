"""Conflict of gradients: by hand, what leaves it as it is, and that it changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox import Classification, Concat, Multimodal
from equivox.balancer import Balancer
from equivox.diagnosis.conflict import Conflict, conflict, layer_groups
from equivox.method import Method
from equivox.testing.problem import Problem, state

Item = tuple[dict[str, Tensor], Tensor]


def batches(count: int = 3, rows: int = 6, order: tuple[str, ...] = ("a", "b")) -> list[Item]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        inputs = {m: torch.randn(rows, n, generator=generator) for m, n in (("a", 3), ("b", 5))}
        target = torch.randint(2, (rows,), generator=generator)
        found.append(({m: inputs[m] for m in order}, target))
    return found


def balancer(order: tuple[str, ...] = ("a", "b")) -> Balancer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = {m: nn.Sequential(nn.Linear(n, 4), nn.Tanh()) for m, n in (("a", 3), ("b", 5))}
        model = Multimodal({m: net[m] for m in order}, Concat(dict.fromkeys(order, 4), 2))
        columns = torch.randn(2, 2, 4)
        for i, weight in enumerate(model.fusion.weights().values()):  # type: ignore[operator]
            weight.data.copy_(columns["ab".index(order[i])])
    return Balancer(model, task=Classification(2))


def test_the_cosine_is_that_of_two_backward_passes() -> None:
    net, items = balancer(), batches(2)
    found = conflict(net, items)
    cosines, ratios = [], []
    for inputs, target in items:
        gradients = []
        for own in (False, True):
            output = net.model(inputs)
            logits = output.split["a"] if own else output.logits
            net.zero_grad()
            net.task.loss(logits, target).backward()
            parts = net.model.encoders["a"].parameters()
            gradients.append(torch.cat([p.grad.flatten() for p in parts if p.grad is not None]))
        cosines.append(torch.cosine_similarity(*gradients, dim=0))
        ratios.append(gradients[0].norm() / gradients[1].norm())
    agreement = found.encoders["a"]
    assert agreement.cosine.value == pytest.approx(float(sum(cosines)) / 2, rel=1e-5)
    assert agreement.ratio.value == pytest.approx(float(ratios[0] * ratios[1]) ** 0.5, rel=1e-5)
    assert agreement.cosine.low == pytest.approx(float(min(cosines)), rel=1e-5)
    assert (found.batches, found.own_heads) == (2, False)
    assert agreement.share.high - agreement.share.low > 0.5  # of two batches


def alone(sign: float) -> Balancer:
    """One modality whose own head is the fusion's layer times a sign; logits (x, 0)."""
    head = nn.Linear(1, 2)
    model = Multimodal({"a": nn.Linear(1, 1)}, Concat({"a": 1}, 2), {"a": head})
    for layer, factor in ((model.fusion.linear, 1.0), (head, sign)):
        layer.weight.data = factor * torch.tensor([[1.0], [0.0]])  # type: ignore[union-attr]
        layer.bias.data.zero_()  # type: ignore[union-attr]
    model.encoders["a"].weight.data.fill_(1.0)
    model.encoders["a"].bias.data.zero_()
    return Balancer(model, task=Classification(2))


def test_an_opposite_head_is_in_conflict_by_hand() -> None:
    x = torch.tensor([[2.0]])
    found = conflict(alone(-1.0), [({"a": x}, torch.tensor([0]))])
    # d/dx of -log sigmoid(x) is sigmoid(x) - 1, of -log sigmoid(-x) it is sigmoid(x).
    p = torch.sigmoid(x).item()
    agreement = found.encoders["a"]
    assert found.own_heads
    assert agreement.cosine.value == pytest.approx(-1)
    assert agreement.share.value == 1
    assert agreement.ratio.value == pytest.approx((1 - p) / p, rel=1e-5)


def test_the_only_modality_agrees_with_itself() -> None:
    found = conflict(alone(1.0), [({"a": torch.randn(5, 1)}, torch.tensor([0, 1, 0, 1, 1]))])
    agreement = found.encoders["a"]
    assert agreement.cosine.value == pytest.approx(1)
    assert (agreement.share.value, agreement.ratio.value) == (0, pytest.approx(1))


def test_a_batch_without_a_gradient_does_not_count() -> None:
    net = alone(-1.0)
    still = ({"a": torch.tensor([[200.0]])}, torch.tensor([0]))  # its joint gradient is zero
    found = conflict(net, [({"a": torch.tensor([[1.0]])}, torch.tensor([1])), still])
    assert found.encoders["a"].share.value == 1
    assert found.batches == 2


def test_no_gradient_has_no_cosine() -> None:
    still = ({"a": torch.tensor([[200.0]])}, torch.tensor([0]))
    cosine = conflict(alone(-1.0), [still]).encoders["a"].cosine.value
    assert cosine != cosine


def test_the_order_of_modalities_does_not_matter() -> None:
    one = conflict(balancer(), batches())
    other = conflict(balancer(("b", "a")), batches(order=("b", "a")))
    for m in "ab":
        assert one.encoders[m].cosine.value == pytest.approx(other.encoders[m].cosine.value)
        assert one.encoders[m].ratio.value == pytest.approx(other.encoders[m].ratio.value)


def test_tiny_gradients_have_a_direction() -> None:
    found = []
    for scale in (1e-8, 1e-16):
        net = balancer()
        net.model.fusion.linear.weight.data *= scale  # type: ignore[operator, union-attr]
        found.append(conflict(net, batches()).encoders["a"])
    assert abs(found[0].cosine.value) > 0.01
    assert found[1].cosine.value == pytest.approx(found[0].cosine.value, rel=1e-4)


class Normed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(width, 4)
        self.rest = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.rest(self.stem(x))


def test_nothing_changes() -> None:
    net = Balancer(
        Multimodal({"a": Normed(3), "b": Normed(5)}, Concat({"a": 4, "b": 4}, 2)),
        task=Classification(2),
    )
    net.model.encoders["b"].rest.eval()  # type: ignore[union-attr]
    (inputs, target), *_ = items = batches()
    net(inputs, target).backward()
    order = torch.Generator().manual_seed(1)
    rows = [({m: x[i] for m, x in inputs.items()}, target[i]) for i in range(6)]
    loader = torch.utils.data.DataLoader(rows, 2, shuffle=True, generator=order)
    weights, modes = state(net), [part.training for part in net.modules()]
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    draws, own = torch.get_rng_state(), order.get_state()
    found = conflict(net, loader)
    assert found.batches == 3
    assert all(torch.equal(weights[k], x) for k, x in state(net).items())
    assert modes == [part.training for part in net.modules()]
    now = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, now, strict=True))
    assert torch.equal(draws, torch.get_rng_state())
    assert torch.equal(own, order.get_state())
    assert list(found.groups["a"]) == [".", "stem", "rest"]
    assert conflict(net, items) == conflict(net, items)


def test_layer_groups() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    assert list(layer_groups(net)) == ["1"]
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3))
    net[0].requires_grad_(False)
    assert list(layer_groups(net)) == ["2"]
    assert list(layer_groups(nn.Linear(2, 3))) == ["."]
    assert layer_groups(nn.Flatten()) == {}


def test_shared_weights_are_nobodys() -> None:
    trunk = nn.Linear(3, 4)
    net = {m: nn.Sequential(trunk, nn.Linear(4, 4)) for m in "ab"}
    net["b"] = nn.Sequential(trunk)
    model = Multimodal(net, Concat({"a": 4, "b": 4}, 2))
    x = torch.randn(6, 3)
    found = conflict(Balancer(model, task=Classification(2)), [({"a": x, "b": x}, batches()[0][1])])
    assert {m: list(by) for m, by in found.groups.items()} == {"a": ["1"]}
    assert list(found.encoders) == ["a"]


def test_recurrent_encoders() -> None:
    class Last(nn.GRU):
        def forward(self, x: Tensor, hx: Any = None) -> Tensor:  # type: ignore[override]
            return super().forward(x, hx)[0][:, -1]

    net = {"a": Last(3, 4, batch_first=True)}
    model = Multimodal(net, Concat({"a": 4}, 2))
    item = {"a": torch.randn(6, 5, 3)}, torch.tensor([0, 1, 0, 1, 1, 0])
    found = conflict(Balancer(model, task=Classification(2)), [item])
    assert found.encoders["a"].cosine.value == pytest.approx(1)


@pytest.mark.parametrize("kind", ["vector", "sequence", "dense", "adopted"])
def test_every_kind_of_network(kind: str) -> None:
    problem = Problem(3, "Dense" if kind == "dense" else "Classification", kind)
    found = conflict(problem.balancer(Method()), problem.loader(), batches=2)
    assert list(found.encoders) == ["audio", "video", "text"]
    assert found.batches == 2
    assert all(-1 <= x.cosine.value <= 1 for x in found.encoders.values())
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["encoders"]["text"]["share"].keys() == {"value", "low", "high"}
    assert isinstance(found, Conflict)


def test_errors() -> None:
    net = balancer()
    with pytest.raises(ValueError, match="empty loader"):
        conflict(net, [])
    with pytest.raises(ValueError, match="`batches` should be 1 or more"):
        conflict(net, batches(), batches=0)
    net.model.encoders.requires_grad_(False)
    with pytest.raises(ValueError, match="no encoder with weights that learn"):
        conflict(net, batches())
