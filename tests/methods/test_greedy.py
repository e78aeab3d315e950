"""Greedy: the MMTM block, the speeds, and the schedule of re-balancing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.features import vector
from equivox.functional.learning_speed import (
    conditional_speeds,
    conditional_utilisation,
    learning_speed,
)
from equivox.methods.feedforward.greedy import Greedy
from equivox.mmtm import MMTM, MMTMBlock
from equivox.testing import Problem
from equivox.testing.problem import sgd, steps


def worked_block() -> MMTMBlock:
    block = MMTMBlock({"a": 2, "b": 2})
    weights = {"a": [[1.0, 0], [0, -1]], "b": [[0.5, 0], [0, 0.5]]}
    block.squeeze = nn.Linear(4, 2)
    nn.init.constant_(block.squeeze.weight, 0.1)
    nn.init.zeros_(block.squeeze.bias)
    for modality, weight in weights.items():
        linear = nn.Linear(2, 2)
        linear.weight = nn.Parameter(torch.tensor(weight))
        nn.init.zeros_(linear.bias)
        block.excitations[modality] = linear
    return block


def test_worked_gates() -> None:
    gates = worked_block().gates({"a": torch.tensor([[2.0, 1]]), "b": torch.tensor([[1.0, 4]])})
    expected = {"a": torch.tensor([[0.689974, 0.310026]]), "b": torch.full((1, 2), 0.598688)}
    torch.testing.assert_close(gates, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 3, 4, 4), (2, 3, 2, 4, 4)])
def test_maps_and_tokens_are_gated_by_channel(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    block, x = MMTMBlock({"a": 3, "b": 2}).eval(), torch.randn(shape)
    features = {"a": x, "b": torch.randn(2, 2)}
    found = block(features)["a"] / x
    gate = block.gates({**features, "a": vector(x)})["a"]
    channel = 2 if len(shape) == 3 else 1
    expected = gate.view([2, *(3 if i == channel else 1 for i in range(1, len(shape)))])
    torch.testing.assert_close(found, expected.expand(shape))


def test_the_average_holds_every_training_batch_and_no_other() -> None:
    block = MMTMBlock({"a": 2})
    expected = [[0.2, 0.4], [0.4, 0.6], [0.3, 0.4]]
    for batch, mean in zip([[0.2, 0.4], [0.6, 0.8], [0.1, 0.0]], expected, strict=True):
        block._track({"a": torch.tensor([batch, batch])})
        torch.testing.assert_close(block.mean("a"), torch.tensor(mean))
    block.eval()({"a": torch.ones(3, 2)})
    torch.testing.assert_close(block.mean("a"), torch.tensor(expected[-1]))


def test_averages_are_kept_apart_where_widths_differ() -> None:
    torch.manual_seed(0)
    block = MMTMBlock({"a": 3, "b": 2})
    features = {"a": torch.randn(4, 3), "b": torch.randn(4, 2)}
    block(features)
    for modality, gate in block.gates(features).items():
        torch.testing.assert_close(block.mean(modality), gate.detach().mean(0))


@pytest.mark.parametrize("held", [0, 1])
def test_a_held_gate_is_constant_and_learns_nothing(held: int) -> None:
    torch.manual_seed(0)
    block = MMTMBlock({"a": 3, "b": 2})
    block.held.fill_(held)
    features = {"a": torch.randn(4, 3), "b": torch.randn(4, 2)}
    gated = block(features)
    constant, other = ("a", "b") if held == 0 else ("b", "a")
    expected = features[constant] * block.mean(constant)
    torch.testing.assert_close(gated[constant], expected)
    torch.stack([x.square().sum() for x in gated.values()]).sum().backward()
    still = block.excitations[constant].parameters()
    moving = [*block.excitations[other].parameters(), *block.squeeze.parameters()]
    assert all(p.grad is None or not p.grad.any() for p in still)
    assert all(p.grad is not None and bool(p.grad.any()) for p in moving)
    block.eval()
    natural = block.gates(features)
    torch.testing.assert_close(block(features)["a"], features["a"] * natural["a"])


def test_shares_add_up_to_the_logits() -> None:
    torch.manual_seed(0)
    fusion = MMTM({"a": 3, "b": 2}, 4)
    features = {"a": torch.randn(5, 3), "b": torch.randn(5, 2)}
    logits = fusion(features)
    total = torch.stack(list(fusion.unimodal(features).values())).sum(0)
    torch.testing.assert_close(total, logits)
    assert float(fusion.block.count) == 1


def test_worked_speeds() -> None:
    bdr = conditional_speeds(torch.tensor([0.02, 0.005]), torch.tensor([0.01, 0.01]))
    torch.testing.assert_close(bdr, torch.tensor([0.301030, -0.301030]), atol=1e-6, rtol=0)
    nothing = conditional_speeds(torch.zeros(2), torch.zeros(2))
    assert torch.equal(nothing, torch.zeros(2))


def test_learning_speed_is_one_ratio_over_the_set() -> None:
    moving, still = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))
    moving.grad = torch.tensor([2.0, 0.0])
    assert float(learning_speed([moving, still])) == pytest.approx(4 / 14)
    assert float(learning_speed([nn.Parameter(torch.zeros(2))])) == 0
    moving.grad *= 3
    assert float(learning_speed([still, moving])) == pytest.approx(9 * 4 / 14)


def test_utilisation() -> None:
    assert float(conditional_utilisation(torch.tensor(0.8), torch.tensor(0.6))) == pytest.approx(
        0.25
    )
    assert float(conditional_utilisation(torch.zeros(()), torch.zeros(()))) == 0


def trace(epochs: int, modalities: int = 2, **options: Any) -> list[tuple[int, list[float]]]:
    """For every step the modality held in its forward, and the sums after it."""
    problem = Problem(modalities=modalities)
    balancer = problem.balancer(Greedy(**options))
    optimizer = sgd(balancer)
    met, held = [], -1
    for _ in steps(balancer, optimizer, problem.loader(), epochs):
        sums = balancer.method.bypass.tolist() + balancer.method.main.tolist()
        met.append((held, sums))
        held = int(balancer.model.fusion.block.held)
    return met


def test_the_official_trace() -> None:
    per_epoch = len(Problem().loader())
    met = trace(6, epsilon=0.0)
    regular = [i for i, (held, _) in enumerate(met) if held < 0]
    start = per_epoch  # the first step after the warm-up is regular and triggers
    expected = [*range(start + 1), *range(start + 6, len(met), 6)]
    assert regular == expected
    for i in range(start + 1, start + 6):
        assert met[i][1] == met[start][1]
    assert met[start + 6][1] != met[start][1]


def test_the_branch_with_the_larger_speed_is_held() -> None:
    for modalities in (2, 3):
        met = trace(2, modalities, epsilon=0.0, starts=0, window=2)
        for (_, sums), (held, _) in pairwise(met):
            bypass, main = torch.tensor(sums).chunk(2)
            if held >= 0:
                assert held == int(conditional_speeds(bypass, main).argmax())
        assert max(held for held, _ in met) >= 0


def test_an_infinite_tolerance_is_plain_training_bit_for_bit() -> None:
    problem = Problem()
    guided = problem.balancer(Greedy(epsilon=float("inf"), head="joint"))
    plain = problem.model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain.fusion = MMTM(plain.widths, 3, 4.0, plain.fusion)
    plain.fusion.load_state_dict(guided.model.fusion.state_dict())
    joint = ev.Balancer(plain, ev.Joint(), task=ev.Classification())
    for balancer in (guided, joint):
        for _ in steps(balancer, sgd(balancer), problem.loader(), 3):
            pass
    pairs = zip(guided.model.parameters(), joint.model.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


def test_the_dual_loss_sums_the_branches_and_predicts_their_mean() -> None:
    problem = Problem()
    balancer = problem.balancer(Greedy())
    sgd(balancer)
    inputs, target, index = next(iter(problem.loader()))
    loss = balancer(inputs, target, index)
    fused = balancer.model.fused(balancer.model.encode(inputs))
    branches = list(fused.extra["branches"].values())
    torch.testing.assert_close(loss, sum(F.cross_entropy(z, target) for z in branches))
    torch.testing.assert_close(fused.logits, torch.stack(branches).mean(0))


def test_the_random_variant_meets_every_choice() -> None:
    met = {held for held, _ in trace(8, 3, variant="random", starts=0)}
    assert met == {-1, 0, 1, 2}


class Deep(nn.Module):
    """A user's fusion with a block of its own between two layers."""

    def __init__(self, returns_branches: bool) -> None:
        super().__init__()
        self.block = MMTMBlock({"a": 4, "b": 4})
        self.layers = nn.ModuleDict({m: nn.Linear(4, 3) for m in "ab"})
        self.returns_branches = returns_branches

    def forward(self, features: dict[str, Tensor]) -> Any:
        branches = {m: self.layers[m](x) for m, x in self.block(features).items()}
        logits = torch.stack(list(branches.values())).mean(0)
        return ev.Fused(logits, {"branches": branches}) if self.returns_branches else logits

    def branch(self, modality: str) -> list[nn.Parameter]:
        own = self.block.excitations[modality].parameters()
        return [*own, *self.layers[modality].parameters()]


@pytest.mark.parametrize("returns_branches", [True, False])
def test_blocks_of_the_network_are_used(returns_branches: bool) -> None:
    torch.manual_seed(0)
    fusion = Deep(returns_branches)
    model = ev.Multimodal({m: nn.Linear(3, 4) for m in "ab"}, fusion)
    method = Greedy(epsilon=0.0, starts=0)
    balancer = ev.Balancer(model, method, task=ev.Classification())
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    assert model.fusion is fusion
    inputs, target = {m: torch.randn(6, 3) for m in "ab"}, torch.arange(6) % 3
    if not returns_branches:
        with pytest.raises(ValueError, match="branches"):
            balancer(inputs, target)
        return
    balancer(inputs, target).backward()
    optimizer.step()
    assert int(fusion.block.held) >= 0
    assert bool((method.main > 0).all())


@pytest.mark.parametrize("options", [{"epsilon": -1.0}, {"window": 0}, {"head": "x"}])
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="should be"):
        Greedy(**options)
