"""Metric, branches, probes and contributions of networks whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.bench.measure import contributions, measure, metric, probes, unimodal
from equivox.diagnosis.metric import value
from equivox.task import Task

CLASSES = 3


def balancer_of(task: Task, modalities: str = "ab", outputs: int = CLASSES) -> ev.Balancer:
    """Encoders and fusion that pass one-hot inputs on: the logits are the sum of the inputs."""
    encoders = {m: nn.Identity() for m in modalities}
    fusion = ev.Concat(dict.fromkeys(modalities, outputs), outputs, bias=False)
    with torch.no_grad():
        fusion.linear.weight.copy_(torch.eye(outputs).repeat(1, len(modalities)))
    return ev.Balancer(ev.Multimodal(encoders, fusion), task=task)


def one_hot_loader(count: int, seen: dict[str, float]) -> list[Any]:
    """Two batches in which each modality shows the class in a share of the samples, else zeros."""
    target = torch.arange(count) % CLASSES
    inputs = {}
    for modality, share in seen.items():
        shown = (torch.arange(count) < share * count).float()[:, None]
        inputs[modality] = nn.functional.one_hot(target, CLASSES) * shown
    half = count // 2
    return [
        ({m: x[part] for m, x in inputs.items()}, target[part])
        for part in (slice(0, half), slice(half, None))
    ]


def test_contributions_by_hand() -> None:
    balancer = balancer_of(ev.Classification(CLASSES))
    loader = one_hot_loader(30, {"a": 1.0, "b": 0.0})
    # Zeros are answered with class 0, right for a third: v(a) = v(ab) = 1, v(b) = v() = 1/3.
    phi = contributions(balancer, loader)
    assert phi == pytest.approx({"a": 2 / 3, "b": 0.0})


def test_interchangeable_modalities_contribute_equally_and_add_up() -> None:
    balancer = balancer_of(ev.Classification(CLASSES), "abc")
    loader = one_hot_loader(30, dict.fromkeys("abc", 0.6))
    phi = contributions(balancer, loader)
    assert phi["a"] == pytest.approx(phi["b"]) == pytest.approx(phi["c"])
    assert sum(phi.values()) == pytest.approx(metric(balancer, loader) - 1 / 3)


def test_contributions_are_those_of_the_methods_own_prediction() -> None:
    class OnlyB(ev.Method):
        category = "yardstick"

        def predict(self, output: Any) -> Tensor:
            return output.split["b"]

    model = balancer_of(ev.Classification(CLASSES)).model
    balancer = ev.Balancer(model, OnlyB(), task=ev.Classification(CLASSES))
    loader = one_hot_loader(30, {"a": 1.0, "b": 1.0})
    assert contributions(balancer, loader) == pytest.approx({"a": 0.0, "b": 2 / 3})


def test_encoders_run_once_a_batch_for_all_subsets() -> None:
    class Counting(nn.Module):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            return x

    balancer = balancer_of(ev.Classification(CLASSES), "abc")
    counting = Counting()
    balancer.model.encoders["a"] = counting
    contributions(balancer, one_hot_loader(30, dict.fromkeys("abc", 1.0)))
    assert counting.runs == 2


def test_branches_are_the_shares_of_the_fused_logits() -> None:
    balancer = balancer_of(ev.Classification(CLASSES))
    loader = one_hot_loader(30, {"a": 1.0, "b": 0.0})
    assert measure(balancer, loader, loader).branch == pytest.approx({"a": 1.0, "b": 1 / 3})


def test_probes_read_what_is_in_the_features_not_what_the_fusion_uses() -> None:
    balancer = balancer_of(ev.Classification(CLASSES))
    loader = one_hot_loader(30, {"a": 1.0, "b": 1.0})
    with torch.no_grad():
        balancer.model.fusion.linear.weight[:, CLASSES:] = 0
    assert measure(balancer, loader, loader).branch["b"] == pytest.approx(1 / 3)
    for logistic in (False, True):
        found = probes(balancer, loader, loader, logistic=logistic)
        assert found == pytest.approx({"a": 1.0, "b": 1.0})


def test_regression_is_measured_by_r2() -> None:
    task = ev.Regression()
    y = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert value(task, y.squeeze(1), y) == 1.0
    assert value(task, torch.full((4, 1), 1.5), y) == 0.0
    balancer = balancer_of(task, outputs=1)
    loader = [({"a": y, "b": torch.zeros(4, 1)}, y)]
    # v(a) = v(ab) = 1; zeros for everything: 1 - (0 + 1 + 4 + 9) / 5.
    assert contributions(balancer, loader) == pytest.approx({"a": 2.8, "b": 0.0})
    assert probes(balancer, loader, loader)["a"] == pytest.approx(1.0, abs=1e-4)


def test_labels_are_probed() -> None:
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]).repeat(4, 1)
    balancer = balancer_of(ev.MultiLabel(2), outputs=2)
    loader = [({"a": target - 0.5, "b": torch.zeros_like(target)}, target)]
    found = probes(balancer, loader, loader)
    assert found["a"] == 1.0 and found["b"] < 1.0


def test_measuring_everything_leaves_the_training_as_it_was() -> None:
    data = ev.data.load("latent2", samples=600)
    model = ev.Multimodal(data.encoders(), ev.Concat(data.widths, data.outputs))
    balancer = ev.Balancer(model, task=data.task).train()
    state = torch.get_rng_state()
    found = measure(balancer, data.loader("train"), data.loader("test"))
    assert torch.equal(state, torch.get_rng_state())
    assert balancer.training and balancer.model.training
    assert set(found.probe) == set(found.branch) == set(found.contribution) == {"easy", "hard"}
    whole = data.loader("test")
    assert found.metric == metric(balancer, whole)
    assert found.branch == unimodal(balancer, whole)  # it has no heads
    assert found.contribution == contributions(balancer, whole)
    assert found.probe == probes(balancer, data.loader("train"), whole)
    gap = abs(found.contribution["easy"] - found.contribution["hard"])
    assert found.imbalance == pytest.approx(gap)


def test_dense_prediction_has_no_probe() -> None:
    balancer = balancer_of(ev.Dense(CLASSES))
    loader = one_hot_loader(30, {"a": 1.0, "b": 0.0})
    with pytest.raises(ValueError, match="one vector a sample"):
        probes(balancer, loader, loader)


def test_the_contributions_of_many_modalities_are_sampled() -> None:
    names = "abcdefghijk"
    balancer = balancer_of(ev.Classification(CLASSES), names)
    loader = one_hot_loader(60, {"a": 1.0} | dict.fromkeys(names[1:], 0.0))
    found = contributions(balancer, loader)
    assert set(found) == set(names) and max(found, key=lambda m: found[m]) == "a"
