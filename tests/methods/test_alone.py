"""Modalities that train alone: they equal a training by hand, and leave the real one untouched."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox import Balancer, Joint
from equivox.method import Method
from equivox.methods.yardstick.alone import Alone, Independent, frozen_copy, trained_alone
from equivox.methods.yardstick.best_unimodal import BestUnimodal
from equivox.run import Run
from equivox.testing.problem import Problem, sgd, state, steps


def trained(method: Method, problem: Problem, epochs: int = 2) -> Balancer:
    balancer = problem.balancer(method)
    optimizer = sgd(balancer)
    for _ in steps(balancer, optimizer, problem.loader(), epochs):
        pass
    return balancer


def by_hand(balancer: Balancer, modality: str, problem: Problem, epochs: int) -> nn.Module:
    """A plain loop over one encoder and its head."""
    encoder = copy.deepcopy(balancer.model.encoders[modality])
    net = nn.Sequential(encoder, copy.deepcopy(balancer.model.heads[modality]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(epochs):
        for inputs, target, _ in problem.loader():
            optimizer.zero_grad()
            F.cross_entropy(net(inputs[modality]), target).backward()
            optimizer.step()
    return net


@pytest.mark.parametrize("modality", ["audio", "video", "text"])
def test_independent_training_is_each_modality_by_hand(modality: str) -> None:
    problem = Problem(modalities=3)
    start = problem.balancer(BestUnimodal())
    expected = by_hand(start, modality, problem, epochs=2)
    found = trained(BestUnimodal(), problem).model
    pairs = zip(found.encoders[modality].parameters(), expected[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_alone_equals_independent_training(modality: str) -> None:
    problem = Problem()
    alone = trained(Alone(modality=modality), problem).model
    together = trained(BestUnimodal(), problem).model
    pairs = zip(
        alone.encoders[modality].parameters(),
        together.encoders[modality].parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_other_encoders_do_not_run() -> None:
    problem = Problem(modalities=3)
    balancer = problem.balancer(Alone(modality="video"))
    calls: list[str] = []
    for name, encoder in balancer.model.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    for _ in steps(balancer, sgd(balancer), problem.loader()):
        pass
    assert set(calls) == {"video"}
    assert balancer.model.encoders["audio"][0].weight.grad is None


def test_a_share_of_the_fusion_learns_with_split_heads() -> None:
    problem = Problem()
    before = problem.model().fusion.weights()
    after = trained(Alone(modality="audio", heads="split"), problem).model.fusion.weights()
    assert not torch.equal(after["audio"], before["audio"])


def test_training_alone_leaves_the_run_untouched() -> None:
    problem = Problem(random=True)
    balancer = problem.balancer(Joint())
    optimizer = sgd(balancer)
    for _ in steps(balancer, optimizer, problem.loader()):
        pass
    before, moments = state(balancer), copy.deepcopy(optimizer.state_dict())
    forks = dict(trained_alone(Run(balancer, problem.loader()), epochs=1))
    assert list(forks) == ["audio", "video"]
    assert all(torch.equal(v, before[k]) for k, v in state(balancer).items())
    after = optimizer.state_dict()
    for key, kept in moments["state"].items():
        assert torch.equal(after["state"][key]["momentum_buffer"], kept["momentum_buffer"])
    assert not torch.equal(
        forks["audio"].balancer.model.encoders["audio"][0].weight,
        balancer.model.encoders["audio"][0].weight,
    )


def test_the_best_epoch_on_validation_data_is_kept() -> None:
    problem = Problem()
    balancer = problem.balancer(Joint())
    sgd(balancer)
    fork = balancer.fork(Alone(modality="audio"))
    scores = fork.fit(problem.loader(), 5, balancer.validation)
    assert len(scores) == 5
    assert fork.score(balancer.validation) == pytest.approx(max(scores))


def test_a_frozen_copy_keeps_no_floating_buffer_and_the_same_names() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    x = torch.randn(5, 3)
    net(x)
    frozen = frozen_copy(net)
    assert set(frozen.state_dict()) == set(net.state_dict())
    assert not any(b.is_floating_point() for b in frozen.buffers())
    assert not any(p.requires_grad for p in frozen.parameters())
    torch.testing.assert_close(frozen(x), net.eval()(x))
    frozen.load_state_dict(net.state_dict())


def test_losses_that_others_added_stay() -> None:
    class Extra(Method):
        category = "objective"

        def losses(self, losses: dict[str, Tensor], step: object) -> dict[str, Tensor]:
            seen.append(set(losses))
            return losses

    seen: list[set[str]] = []
    for chain in (BestUnimodal() + Extra(), Extra() + BestUnimodal()):
        trained(chain, Problem(), epochs=1)
        assert seen.pop(0) == {"joint"}  # who drops the joint loss comes last
    assert issubclass(BestUnimodal, Independent)


def test_unknown_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="`heads` should be"):
        Alone(modality="audio", heads="any")
