"""PMR: the worked example, coefficients, prototypes, unseen classes, other tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox import (
    Balancer,
    Classification,
    Concat,
    Joint,
    Method,
    MultiLabel,
    Multimodal,
    Regression,
)
from equivox.functional.discrepancy import lags_and_leads
from equivox.functional.labels import answers
from equivox.methods.optimization.pmr import PMR, first_batches
from equivox.testing.problem import Problem, sgd

NAMES = ("first", "second")
Z = {
    "first": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    "second": torch.tensor([[0.4, 0.3], [0.6, 0.2]]),
}
C = {
    "first": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    "second": torch.tensor([[0.5, 0.0], [0.0, 0.5]]),
}
Y = torch.tensor([0, 1])


def worked(method: PMR) -> Balancer:
    """The worked example: features are the inputs, prototypes are given."""
    net = {m: nn.Linear(2, 2, bias=False) for m in NAMES}
    for layer in net.values():
        layer.weight.data.copy_(torch.eye(2))
    balancer = Balancer(
        Multimodal(net, Concat(dict.fromkeys(NAMES, 2), 2)), method, task=Classification()
    )
    for m, c in C.items():
        method.prototypes.of(m).copy_(c)
    method.prototypes.seen.fill_(True)
    balancer.progress.started = True
    return balancer


def extra(method: PMR, epoch: int = 0, swap: bool = False) -> tuple[float, dict[str, Tensor]]:
    balancer = worked(method)
    balancer.progress.epoch = epoch
    plan = (Z, Y) if not swap else (dict(reversed(Z.items())), Y)
    loss = balancer(*plan)
    joint = balancer.task.loss(balancer.model(plan[0]).logits, Y)
    balancer.zero_grad()
    (loss - joint).backward()
    found = {m: balancer.model.encoders[m].weight.grad for m in NAMES}
    return (loss - joint).item(), found


def fitted(method: Method, task: Any, target: Tensor, count: int = 3, epochs: int = 2) -> Balancer:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3 + i, 4 + i) for i in range(count)}
    widths = {f"m{i}": 4 + i for i in range(count)}
    balancer = Balancer(Multimodal(net, Concat(widths, 3)), method, task=task)
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    inputs = {m: torch.randn(len(target), 3 + i) for i, m in enumerate(net)}
    loader = [(inputs, target)]
    for _ in range(epochs):
        for item in balancer.epoch(loader):
            balancer(*item).backward()
            optimizer.step()
            optimizer.zero_grad()
    return balancer


def test_coefficients_of_the_worked_example() -> None:
    scores = {"first": torch.tensor(0.804430), "second": torch.tensor(0.4613615)}
    slow, dominant = lags_and_leads(scores)
    assert [x.item() for x in slow.values()] == pytest.approx([0, 0.743599], abs=1e-5)
    assert [x.item() for x in dominant.values()] == pytest.approx([0.743599, 0], abs=1e-5)
    slow, dominant = lags_and_leads(scores, hard=True)
    assert [x.item() for x in slow.values()] == [0, 1]
    assert [x.item() for x in dominant.values()] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "epoch", "expected"),
    [
        ({"alpha": 1.0, "mu": 0.01}, 0, 0.580551),
        ({"alpha": 1.0, "mu": 0.01}, 9, 0.580551),
        ({"alpha": 1.0, "mu": 0.01}, 10, 0.584226),
        ({"alpha": 1.0, "variant": "official"}, 0, 0.785673),
        ({"alpha": 1.0, "ends": 3}, 4, 0.0),
        ({"alpha": 1.0, "starts": 3}, 2, 0.0),
    ],
)
def test_loss_of_the_worked_example(arguments: dict[str, Any], epoch: int, expected: float) -> None:
    assert extra(PMR(**arguments), epoch)[0] == pytest.approx(expected, abs=2e-6)


def test_the_prototype_loss_never_reaches_the_dominant_encoder() -> None:
    found = extra(PMR(mu=0.0))[1]
    assert not found["first"].any()
    assert found["second"].any()


def test_the_order_of_the_modalities_is_no_matter() -> None:
    assert extra(PMR())[0] == pytest.approx(extra(PMR(), swap=True)[0], abs=1e-6)
    scores = {"a": torch.tensor(0.3), "b": torch.tensor(0.2), "c": torch.tensor(0.9)}
    one, other = lags_and_leads(scores), lags_and_leads(dict(reversed(scores.items())))
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_tie_moves_nobody(hard: bool, count: int) -> None:
    scores = {f"m{i}": torch.tensor(0.25) for i in range(count)}
    assert not any(x.any() for part in lags_and_leads(scores, hard) for x in part.values())


def test_coefficients_stay_in_bounds() -> None:
    slow, dominant = lags_and_leads({"a": torch.tensor(0.0), "b": torch.tensor(1.0)})
    assert [slow["a"], slow["b"], dominant["a"], dominant["b"]] == [1, 0, 0, 1]
    both = lags_and_leads(dict.fromkeys("ab", torch.tensor(0.0)))
    assert all(x.isfinite() for part in both for x in part.values())


def test_prototypes_are_the_mean_features_of_the_first_batches() -> None:
    method = PMR(share=0.1)
    torch.manual_seed(0)
    net = {m: nn.Linear(3, 4) for m in NAMES}
    balancer = Balancer(
        Multimodal(net, Concat(dict.fromkeys(NAMES, 4), 3)), method, task=Classification()
    )
    loader = [({m: torch.randn(6, 3) for m in NAMES}, torch.arange(6) % 2) for _ in range(20)]
    next(iter(balancer.epoch(loader)))
    inputs = {m: torch.cat([loader[0][0][m], loader[1][0][m]]) for m in NAMES}
    target = torch.cat([loader[0][1], loader[1][1]])
    for m, z in balancer.model.encode(inputs).items():
        prototypes = method.prototypes.of(m)
        torch.testing.assert_close(prototypes[1], z[target == 1].mean(0))
        assert not prototypes[2].any()
    assert method.prototypes.seen.tolist() == [[True, True, False]]


def test_the_subset_has_a_batch_at_least() -> None:
    assert list(first_batches([1, 2, 3], 0.1)) == [1]
    assert list(first_batches(list(range(30)), 0.1)) == [0, 1, 2]
    assert list(first_batches((x for x in (1, 2)), 0.1)) == [1, 2]


def test_official_prototypes_have_a_second_first_time() -> None:
    target = torch.arange(12) % 3
    for variant, expected in {"official": True, "paper": False}.items():
        method = PMR(variant=variant, momentum=0.9)
        balancer = fitted(method, Classification(), target, epochs=1)
        before = {m: method.prototypes.of(m).clone() for m in balancer.model.modalities}
        inputs = {m: torch.randn(12, 3 + i) for i, m in enumerate(balancer.model.modalities)}
        next(iter(balancer.epoch([(inputs, target)])))
        z = balancer.model.encode(inputs)["m0"]
        now = method.prototypes.of("m0")
        mean = torch.stack([z[target == k].mean(0) for k in range(3)])
        assert torch.allclose(now, mean, atol=1e-6) == expected
        if not expected:
            torch.testing.assert_close(now, 0.9 * before["m0"] + 0.1 * mean)


def test_without_weights_it_is_joint_training_bit_for_bit() -> None:
    target = torch.arange(12) % 3
    plain = fitted(Joint(), Classification(), target).model.state_dict()
    neutral = fitted(PMR(alpha=0.0, mu=0.0), Classification(), target).model.state_dict()
    assert all(torch.equal(neutral[name], value) for name, value in plain.items())


def test_a_label_has_a_pair_of_prototypes() -> None:
    target = (torch.rand(12, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    method = PMR()
    balancer = fitted(method, MultiLabel(), target, epochs=1)
    assert method.prototypes.seen.shape == (3, 2)
    assert method.prototypes.of("m1").shape == (6, 5)
    assert all(p.isfinite().all() for p in balancer.parameters())


def test_a_regression_has_quantile_bins_that_stay() -> None:
    method = PMR(bins=4)
    balancer = fitted(method, Regression(3), torch.arange(36.0).view(12, 3) ** 2, epochs=1)
    edges = method.edges.clone()
    assert edges.shape == (3, 3)
    assert (edges.diff(dim=1) > 0).all()
    labels = answers(balancer.task, torch.arange(36.0).view(12, 3) ** 2, edges)
    assert [x.bincount().tolist() for x in labels.T] == [[3, 3, 3, 3]] * 3
    inputs = {m: torch.randn(12, 3 + i) for i, m in enumerate(balancer.model.modalities)}
    next(iter(balancer.epoch([(inputs, torch.randn(12, 3))])))
    assert torch.equal(method.edges, edges)


@pytest.mark.parametrize(
    "bad",
    [{"alpha": -1.0}, {"momentum": 1.0}, {"share": 0.0}, {"variant": "x"}, {"temperature": 0.0}],
)
def test_refuses_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`.* should"):
        PMR(**bad)


def test_a_modality_that_the_first_batches_lack_has_prototypes() -> None:
    problem = Problem()
    batches = [tuple(batch) for batch in problem.loader()]
    inputs, *rest = batches[0]
    batches[0] = ({"audio": inputs["audio"], "present": {"video": False}}, *rest)
    balancer = problem.balancer(PMR(share=1.0))
    sgd(balancer)
    next(iter(balancer.epoch(batches)))
    assert balancer.method.prototypes.of("video").abs().sum() > 0  # type: ignore[union-attr, operator]
