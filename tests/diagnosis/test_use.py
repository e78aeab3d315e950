from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox.balancer import Balancer
from equivox.diagnosis.answers import BLANKINGS, Answers, gather
from equivox.diagnosis.late_fusion import LateFusion
from equivox.diagnosis.use import change, dependence, routing, use, use_in_late_fusion
from equivox.fusion import Concat
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression, Task


def adding(weights: dict[str, float], task: Task) -> Balancer:
    """Adds two numbers of each modality, times its weight."""
    fusion = Concat(dict.fromkeys(weights, 2), 2)
    model = Multimodal({m: nn.Identity() for m in weights}, fusion)
    (linear,) = [m for m in fusion.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        linear.bias.zero_()
        linear.weight.copy_(torch.cat([w * torch.eye(2) for w in weights.values()], 1))
    return Balancer(model, task=task)


def one_hot(labels: Tensor) -> Tensor:
    return nn.functional.one_hot(labels, 2).float()


def loader(size: int = 50) -> list[Any]:
    label = torch.arange(200) % 2
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    return [
        ({"a": one_hot(label[i : i + size]) * 40, "b": noise[i : i + size]}, label[i : i + size])
        for i in range(0, 200, size)
    ]


def test_a_modality_that_is_ignored_is_not_used() -> None:
    found = use(gather(adding({"a": 1.0, "b": 0.0}, Classification(2)), loader()))
    assert list(found["b"].divergence.to_json().values()) == [0, 0, 0]
    assert list(found["b"].drop.to_json().values()) == [0, 0, 0]
    assert found["b"].mispaired.value == 1


def test_a_modality_that_decides_moves_everything() -> None:
    found = use(gather(adding({"a": 1.0, "b": 0.0}, Classification(2)), loader()))
    # Of the pairs with different labels, each is given the answer of the other.
    assert found["a"].divergence.value == pytest.approx(1)
    assert found["a"].mispaired.value == 0
    assert found["a"].drop.value == 1


def test_without_pairs_of_different_targets_nothing_is_known() -> None:
    same = [(inputs, torch.zeros_like(target)) for inputs, target in loader()]
    found = use(gather(adding({"a": 1.0, "b": 0.0}, Classification(2)), same))
    assert math.isnan(found["a"].divergence.value) and math.isnan(found["a"].drop.value)


@pytest.mark.parametrize("count", [2, 3])
def test_a_late_fusion_listens_to_who_is_sure(count: int) -> None:
    label = torch.arange(400) % 2
    alone = {f"m{i}": torch.zeros(400, 2) for i in range(count)}
    alone["m0"] = one_hot(label) * 40
    late = LateFusion(dict.fromkeys(alone, torch.ones(())), torch.zeros(2))
    found = use_in_late_fusion(Classification(2), label, alone, late)
    assert found["m0"].drop.value == 1
    for m in list(alone)[1:]:
        assert found[m].divergence.value == 0 and found[m].drop.value == 0


def test_the_order_of_the_classes_leaves_the_use_as_it_is() -> None:
    balancer = adding({"a": 1.0, "b": 0.0}, Classification(2))
    inputs = {m: torch.cat([item[0][m] for item in loader()]) for m in "ab"}
    label = torch.cat([item[1] for item in loader()])
    by_class = label.argsort(stable=True).split(50)
    found = use(
        gather(balancer, [({m: x[o] for m, x in inputs.items()}, label[o]) for o in by_class])
    )
    assert found["a"].drop.value == 1 and found["b"].drop.value == 0
    assert found["a"].pairs == found["b"].pairs and 70 < (found["a"].pairs or 0) < 130


def test_rows_that_share_samples_are_less_sure() -> None:
    rows, places = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.arange(4)
    assert dependence(rows, places) == pytest.approx((1 + 2 * (1 - 1 + 1) / 4) ** 0.5)
    order = torch.tensor([2, 0, 3, 1])
    assert dependence(rows[order], places[order]) == dependence(rows, places)
    assert dependence(rows, 2 * places) == 1  # none of them shares a sample
    assert dependence(torch.tensor([1.0, -1.0, 1.0, -1.0]), places) == 1
    assert dependence(torch.ones(4), places) == 1


def test_intervals_allow_for_loud_samples() -> None:
    """Where few are loud, each makes both of its pairs move."""
    g = torch.Generator().manual_seed(0)
    task, target = Regression(), torch.randn(200, generator=g)
    inside = 0
    for _ in range(100):
        loud = torch.where(torch.rand(200, 1, generator=g) < 0.1, 5.0, 0.0)
        z = {"a": loud * torch.randn(200, 1, generator=g), "b": torch.zeros(200, 1)}
        late = LateFusion(dict.fromkeys(z, torch.ones(())), torch.zeros(1))
        found = use_in_late_fusion(task, target, z, late)["a"].divergence
        inside += found.low <= 5.0 / target.var(correction=0) <= found.high
    assert inside >= 88


def test_divergence_of_certain_and_equal_predictions() -> None:
    sure, other = torch.tensor([[50.0, -50.0]]), torch.tensor([[-50.0, 50.0]])
    even = torch.zeros(1, 2)
    task, target = Classification(2), torch.tensor([0])
    assert float(change(task, target, sure, other)) == pytest.approx(1)
    assert float(change(task, target, sure, sure)) == 0
    # JSD((1, 0), (1/2, 1/2)) = H(3/4, 1/4) - H(1/2, 1/2) / 2, in bits.
    wanted = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert float(change(task, target, sure, even)) == pytest.approx(wanted)


def test_divergence_of_labels_and_positions_is_their_mean() -> None:
    labels = torch.tensor([[60.0, 0.0]]), torch.tensor([[-60.0, 0.0]])
    assert float(change(MultiLabel(2), torch.zeros(1, 2), *labels)) == pytest.approx(0.5)
    maps = torch.tensor([[[60.0, 0.0], [-60.0, 0.0]]])
    assert float(change(Dense(2), torch.zeros(1, 2), maps, maps.flip(1))) == pytest.approx(0.5)


def test_change_of_numbers_is_in_variances_of_the_target() -> None:
    target = torch.tensor([[0.0, 0.0], [2.0, 20.0]])  # variances 1 and 100
    moved = torch.tensor([[1.0, 10.0], [0.0, 0.0]])
    assert change(Regression(2), target, moved, torch.zeros(2, 2)).tolist() == [1.0, 0.0]
    assert change(Regression(), target[:, 0], moved[:, :1], torch.zeros(2)).tolist() == [1.0, 0.0]


def answers(task: Task, target: Tensor, whole: Tensor) -> Answers:
    rows = torch.ones(len(target), dtype=torch.bool)
    said = {frozenset("ab"): whole}
    how = dict.fromkeys(BLANKINGS, said)
    return Answers(task, ("a", "b"), target, rows, how, {}, {}, rows, {})


def test_the_routing_table_by_hand() -> None:
    target = torch.zeros(10, dtype=torch.long)
    right = {
        "a": [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        "b": [1, 1, 0, 0, 0, 1, 1, 0, 0, 0],
        "fused": [1, 1, 1, 1, 0, 1, 0, 1, 0, 0],
    }
    said = {name: one_hot(1 - torch.tensor(rows)) for name, rows in right.items()}
    fused = said.pop("fused")
    routes = routing(answers(Classification(2), target, fused), said)
    table = [(route.right, route.samples, route.share, route.metric.value) for route in routes]
    assert table == [
        (("a", "b"), 2, 0.2, 1.0),
        (("a",), 3, 0.3, pytest.approx(2 / 3)),
        (("b",), 2, 0.2, 0.5),
        ((), 3, 0.3, pytest.approx(1 / 3)),
    ]
    assert sum(r.samples * r.metric.value for r in routes) == pytest.approx(6)


def test_routes_that_do_not_occur_are_left_out() -> None:
    target = torch.zeros(4, dtype=torch.long)
    every = one_hot(target)
    routes = routing(answers(Classification(2), target, every), {"a": every, "b": every})
    assert [route.right for route in routes] == [("a", "b")]


def test_a_route_of_few_samples_is_not_certain() -> None:
    target = torch.zeros(3, dtype=torch.long)
    (route,) = routing(answers(Classification(2), target, one_hot(target)), {"a": one_hot(target)})
    assert route.metric.value == 1 and route.metric.low == pytest.approx(0.4385, abs=1e-4)


def test_a_regression_has_no_routes() -> None:
    numbers = torch.zeros(4, 1)
    assert routing(answers(Regression(), numbers, numbers), {"a": numbers, "b": numbers}) == []


def test_of_many_modalities_only_the_routes_that_occur_are_listed() -> None:
    target = torch.zeros(3, dtype=torch.long)
    names = [f"m{i}" for i in range(40)]
    alone = {m: one_hot(torch.tensor([0, i % 2, 1])) for i, m in enumerate(names)}
    routes = routing(answers(Classification(2), target, one_hot(target)), alone)
    assert [len(route.right) for route in routes] == [40, 20, 0]
    assert routes[1].right == tuple(names[::2])
