from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox.balancer import Balancer
from equivox.diagnosis.answers import BLANKINGS, gather
from equivox.diagnosis.metric import value
from equivox.diagnosis.robustness import DEVIATIONS, SHARES, deviations, disturbed, robustness
from equivox.fusion import Concat
from equivox.method import Method
from equivox.model import Multimodal
from equivox.task import Classification, Regression
from equivox.testing.problem import Problem


class Counting(nn.Module):
    """Passes its input on and counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x


class Codes(nn.Module):
    """(batch, time) class numbers -> one-hot means."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, 2).float().mean(1)


def network(encoders: dict[str, nn.Module], weights: dict[str, float]) -> Balancer:
    """Adds the features of the modalities, each times its weight: two classes each."""
    fusion = Concat(dict.fromkeys(encoders, 2), 2)
    model = Multimodal(encoders, fusion)
    with torch.no_grad():
        for p in fusion.parameters():
            p.zero_()
        for w, (m, part) in zip(weights.values(), fusion_weights(fusion).items(), strict=True):
            assert m in encoders
            part += w * torch.eye(2)
    return Balancer(model, task=Classification(2))


def fusion_weights(fusion: Concat) -> dict[str, Tensor]:
    (linear,) = [m for m in fusion.modules() if isinstance(m, nn.Linear)]
    return dict(zip(fusion.widths, linear.weight.split(2, dim=1), strict=True))


def batches(samples: int = 400, size: int = 100) -> list[Any]:
    g = torch.Generator().manual_seed(0)
    label = torch.randint(2, (samples,), generator=g)
    signal = nn.functional.one_hot(label, 2).float()
    inputs = {"a": signal * 2, "b": torch.randn(samples, 2, generator=g)}
    parts = range(0, samples, size)
    index = torch.arange(samples)
    return [
        ({m: x[i : i + size] for m, x in inputs.items()}, label[i : i + size], index[i : i + size])
        for i in parts
    ]


def test_only_what_is_used_hurts() -> None:
    balancer = network({"a": nn.Identity(), "b": nn.Identity()}, {"a": 1.0, "b": 0.0})
    found = robustness(balancer, batches(), gather(balancer, batches()))
    assert found["a"].whole.value == 1
    assert all(x.value == 1 for x in found["b"].missing.values())
    assert all(x.value == 1 for x in found["b"].disturbed.metric)
    assert set(found["a"].missing) == set(BLANKINGS)
    metric = [x.value for x in found["a"].disturbed.metric]
    assert found["a"].disturbed.levels == DEVIATIONS and found["a"].disturbed.kind == "noise"
    # Inputs of 0 and 2 deviate by 1: the classes differ by 2, their noise by sqrt(2) times level.
    wanted = torch.special.ndtr(2 / (2**0.5 * torch.tensor(DEVIATIONS)))
    assert metric == pytest.approx(wanted.tolist(), abs=0.04)
    assert metric == sorted(metric, reverse=True)
    assert found["a"].missing["shuffle"].value == pytest.approx(0.5, abs=0.1)


def test_deviations_by_hand() -> None:
    loader = [
        ({"a": torch.tensor([[0.0], [2.0]])}, torch.zeros(2)),
        ({"a": torch.tensor([[torch.nan], [4.0]])}, torch.zeros(2)),
    ]
    assert deviations(loader, ["a"]) == {"a": [pytest.approx((8 / 3) ** 0.5)]}


def test_padding_and_absent_samples_do_not_count() -> None:
    tokens = torch.tensor([[[1.0], [99.0]], [[3.0], [99.0]], [[99.0], [99.0]]])
    mask = torch.tensor([[False, True]] * 3)
    present = {"a": torch.tensor([True, True, False])}
    loader = [({"a": (tokens, mask), "present": present}, torch.zeros(3))]
    assert deviations(loader, ["a"]) == {"a": [pytest.approx(1.0)]}


def test_only_the_disturbed_encoder_runs_again() -> None:
    encoders: dict[str, nn.Module] = {"a": Counting(), "b": Counting()}
    balancer = network(encoders, {"a": 1.0, "b": 1.0})
    disturbed(balancer, batches(samples=100, size=50))
    # Once for the whole, once a level, in each of two batches.
    assert [e.runs for e in encoders.values()] == [2 * (1 + len(DEVIATIONS))] * 2  # type: ignore[attr-defined]


def test_tokens_are_exchanged() -> None:
    balancer = network({"a": Codes(), "b": nn.Identity()}, {"a": 1.0, "b": 0.0})
    label = torch.arange(1000) % 2
    inputs = {"a": label[:, None].expand(-1, 3), "b": torch.zeros(1000, 2)}
    curve = disturbed(balancer, [(inputs, label)])["a"]
    assert curve.kind == "exchange" and curve.levels == SHARES
    # Of the exchanged samples about half get an input of their own class.
    metric = [x.value for x in curve.metric]
    assert metric == pytest.approx([1 - s / 2 for s in SHARES], abs=0.05)


def test_tokens_are_exchanged_over_the_whole_loader() -> None:
    balancer = network({"a": Codes(), "b": nn.Identity()}, {"a": 1.0, "b": 0.0})
    label = (torch.arange(1000) >= 500).long()
    loader = [
        ({"a": x[:, None].expand(-1, 3), "b": torch.zeros(len(x), 2)}, x) for x in label.split(50)
    ]
    metric = [x.value for x in disturbed(balancer, loader)["a"].metric]
    assert metric == pytest.approx([1 - s / 2 for s in SHARES], abs=0.05)


def test_seeded_and_independent_of_the_order_of_what_is_left() -> None:
    balancer = network({"a": nn.Identity(), "b": nn.Identity()}, {"a": 1.0, "b": 1.0})
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = disturbed(balancer, batches(), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert one == disturbed(balancer, batches(), seed=3)
    assert one != disturbed(balancer, batches(), seed=4)


def test_regression() -> None:
    model = Multimodal({"a": nn.Identity()}, Concat({"a": 1}, 1))
    with torch.no_grad():
        for p in model.fusion.parameters():
            p.fill_(1.0 if p.ndim > 1 else 0.0)
    balancer = Balancer(model, task=Regression())
    y = torch.linspace(-1, 1, 2000)[:, None]
    curve = disturbed(balancer, [({"a": y}, y)])["a"]
    # The error's variance is level^2 times the target's: R2 = 1 - level^2.
    wanted = [1 - level**2 for level in DEVIATIONS]
    assert [x.value for x in curve.metric] == pytest.approx(wanted, rel=0.1, abs=0.05)


def test_json_is_plain() -> None:
    balancer = network({"a": nn.Identity(), "b": nn.Identity()}, {"a": 1.0, "b": 0.0})
    answers = gather(balancer, batches())
    found = robustness(balancer, batches(), answers)["a"].to_json()
    assert found["disturbed"]["levels"] == DEVIATIONS
    assert found["whole"]["value"] == value(answers.task, answers.whole, answers.target)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("Classification", "vector"),
        ("Classification", "sequence"),
        ("Classification", "adopted"),
        ("MultiLabel", "vector"),
        ("Regression", "vector"),
        ("Dense", "dense"),
    ],
)
def test_without_noise_nothing_changes(
    task: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("equivox.diagnosis.robustness")  # the package has the function as well
    monkeypatch.setattr(module, "DEVIATIONS", (0.0, 5.0))
    problem = Problem(3, task, kind)
    balancer = problem.balancer(Method())
    answers = gather(balancer, problem.loader())
    for found in robustness(balancer, problem.loader(), answers).values():
        none, much = found.disturbed.metric
        assert none.value == pytest.approx(found.whole.value, abs=1e-6)
        assert much.value == much.value  # a number


def test_absent_modalities_are_not_disturbed() -> None:
    balancer = network({"a": nn.Identity(), "b": nn.Identity()}, {"a": 1.0, "b": 1.0})
    (inputs, label, index), *_ = batches()
    gone = {"a": inputs["a"], "present": {"b": False}}
    curves = disturbed(balancer, [(gone, label, index)])
    assert all(x.value == 1 for x in curves["b"].metric)
    assert curves["a"].metric[-1].value < 1
