"""The worked examples of the specification, its axioms, and shapiq as the oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equivox.balancer import Balancer
from equivox.diagnosis.answers import BLANKINGS, Answers, gather
from equivox.diagnosis.contribution import Contribution, contribution, sample_contributions
from equivox.diagnosis.metric import estimate, metric_of
from equivox.functional import imbalance, subsets
from equivox.functional.shapley import orders, sampled_shapley_values
from equivox.fusion import Concat
from equivox.model import Multimodal
from equivox.task import Classification, Regression


def game(accuracies: Mapping[str, float], samples: int) -> Answers:
    """A network with this accuracy for every subset, written "ab"."""
    names = tuple(sorted(max(accuracies, key=len)))
    target = torch.zeros(samples, dtype=torch.long)
    logits = {frozenset(s): says(round(v * samples), samples) for s, v in accuracies.items()}
    every = torch.ones(samples, dtype=torch.bool)
    how = dict.fromkeys(BLANKINGS, logits)
    return Answers(Classification(2), names, target, target, how, {}, {}, every, {})


def says(right: int, samples: int) -> Tensor:
    wrong = (torch.arange(samples) >= right).long()
    return nn.functional.one_hot(wrong, 2).float()


TWO = game({"": 0.10, "a": 0.55, "b": 0.30, "ab": 0.65}, 20)
THREE = game(
    {"": 0.50, "a": 0.55, "b": 0.52, "c": 0.75, "ab": 0.58, "ac": 0.78, "bc": 0.76, "abc": 0.80},
    100,
)


def phi(found: Contribution) -> list[float]:
    return [x.value for x in found.values.values()]


def test_two_modalities() -> None:
    found = contribution(TWO)
    assert phi(found) == pytest.approx([0.40, 0.15])
    assert found.imbalance == pytest.approx(0.25)
    assert found.relative == pytest.approx(0.454545, abs=1e-6)
    assert found.interaction == {"a + b": pytest.approx(-0.10)}
    wanted = {"": 0.10, "a": 0.55, "b": 0.30, "a + b": 0.65}
    assert found.subsets == {name: pytest.approx(v) for name, v in wanted.items()}


def test_three_modalities() -> None:
    found = contribution(THREE)
    assert phi(found) == pytest.approx([0.045, 0.020, 0.235])
    assert found.imbalance == pytest.approx(0.143333, abs=1e-6)
    values = torch.tensor(phi(found))
    assert float(values.max() - values.min()) == pytest.approx(0.215, abs=1e-6)
    assert float(values.std(correction=0)) == pytest.approx(0.096003, abs=1e-6)
    assert list(found.interaction.values()) == pytest.approx([0.01, -0.02, -0.01])
    assert list(found.interaction) == ["a + b", "a + c", "b + c"]


@pytest.mark.parametrize("answers", [TWO, THREE])
def test_efficiency(answers: Answers) -> None:
    found = contribution(answers)
    whole = found.subsets[" + ".join(answers.modalities)]
    assert sum(phi(found)) == pytest.approx(whole - found.subsets[""])


def test_an_ignored_modality_contributes_nothing() -> None:
    found = contribution(game({"": 0.2, "a": 0.7, "b": 0.2, "ab": 0.7}, 10))
    assert phi(found) == pytest.approx([0.5, 0.0])


def test_interchangeable_modalities_are_balanced() -> None:
    found = contribution(game({"": 0.2, "a": 0.6, "b": 0.6, "ab": 0.9}, 10))
    assert phi(found) == pytest.approx([0.35, 0.35])
    assert (found.imbalance, found.relative) == (pytest.approx(0), pytest.approx(0))


def test_names_do_not_matter() -> None:
    turned = {frozenset("abc"[(("abc".index(m)) + 1) % 3] for m in s) for s in subsets("abc")}
    assert turned == set(subsets("abc"))
    values = {
        "": 0.50, "b": 0.55, "c": 0.52, "a": 0.75, "bc": 0.58, "ab": 0.78, "ac": 0.76, "abc": 0.80,
    }  # fmt: skip
    found = contribution(game(values, 100))
    assert [found.values[m].value for m in "bca"] == pytest.approx([0.045, 0.020, 0.235])
    assert found.imbalance == pytest.approx(0.143333, abs=1e-6)


def test_the_samples_contributions_have_the_value_as_mean() -> None:
    rows = sample_contributions(THREE)
    found = contribution(THREE)
    for m, values in rows.items():
        assert values.shape == (100,)
        assert float(values.mean()) == pytest.approx(found.values[m].value)
        assert found.values[m].low <= found.values[m].value <= found.values[m].high


def network() -> tuple[Balancer, list[object]]:
    torch.manual_seed(3)
    encoders = {m: nn.Linear(5, 4) for m in ("x", "y", "z")}
    model = Multimodal(encoders, Concat(dict.fromkeys(encoders, 4), 3))
    inputs = {m: torch.randn(60, 5) for m in encoders}
    return Balancer(model, task=Classification(3)), [(inputs, torch.randint(3, (60,)))]


def test_the_metric_of_nothing_is_the_share_of_one_class() -> None:
    balancer, loader = network()
    answers = gather(balancer, loader)
    said = answers.logits["zero"][frozenset()].argmax(1).unique()
    assert len(said) == 1
    share = float((answers.target == said).double().mean())
    assert contribution(answers).subsets[""] == pytest.approx(share)


@pytest.mark.parametrize("how", BLANKINGS)
def test_agrees_with_shapiq(how: str) -> None:
    shapiq = pytest.importorskip("shapiq")
    balancer, loader = network()
    answers = gather(balancer, loader)
    names = answers.modalities

    def play(coalitions: np.ndarray) -> np.ndarray:
        here = [frozenset(m for m, on in zip(names, r, strict=True) if on) for r in coalitions]
        said = [answers.logits[how][s].argmax(1) for s in here]
        return np.array([float((x == answers.target).double().mean()) for x in said])

    oracle = shapiq.ExactComputer(play, n_players=3)
    values, pairs = oracle("SV", 1), oracle("SII", 2)
    found = contribution(answers, how)
    assert phi(found) == pytest.approx([values[(i,)] for i in range(3)], abs=1e-10)
    wanted = [pairs[p] for p in ((0, 1), (0, 2), (1, 2))]
    assert list(found.interaction.values()) == pytest.approx(wanted, abs=1e-10)
    degree = imbalance({m: torch.tensor(values[(i,)]) for i, m in enumerate(names)})
    assert found.imbalance == pytest.approx(float(degree.absolute), abs=1e-6)


def test_regression_divides_r2() -> None:
    target = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    mean = torch.full_like(target, 1.5)
    half = (target + mean) / 2  # an error of half the deviation: R2 = 0.75
    logits = {"": mean, "a": half, "b": mean, "ab": target}
    said = {frozenset(s): z for s, z in logits.items()}
    how = dict.fromkeys(BLANKINGS, said)
    there = torch.ones(4, dtype=torch.bool)
    answers = Answers(Regression(), ("a", "b"), target, there, how, {}, {}, there, {})
    assert phi(contribution(answers)) == pytest.approx([0.875, 0.125])


def nine() -> Answers:
    """A game of nine in which contributions fall, and two modalities are worth more together."""
    names = tuple(f"m{i}" for i in range(9))
    samples = 400
    target = torch.zeros(samples, dtype=torch.long)

    def worth(subset: frozenset[str]) -> float:
        alone = sum(0.1 / (i + 1) for i, m in enumerate(names) if m in subset)
        return 0.3 + alone + 0.1 * ({"m0", "m1"} <= subset)

    logits = {s: says(round(worth(s) * samples), samples) for s in subsets(names)}
    every = torch.ones(samples, dtype=torch.bool)
    how = dict.fromkeys(BLANKINGS, logits)
    return Answers(Classification(2), names, target, target, how, {}, {}, every, {})


def test_sampled_values_agree_with_the_exact_ones() -> None:
    answers = nine()
    exact = contribution(answers)
    drawn = orders(answers.modalities, 32, torch.Generator().manual_seed(0))
    met = {frozenset(order[:size]) for order in drawn for size in range(10)}
    few = {s: z for s, z in answers.logits["zero"].items() if s in met}
    sampled = contribution(replace(answers, logits={"zero": few}, orders=drawn))
    assert sampled.sampled and not exact.sampled and len(few) < 2**9
    assert sampled.interaction == {} and len(exact.interaction) == 36
    assert sum(phi(sampled)) == pytest.approx(sum(phi(exact)))
    for m, found in sampled.values.items():
        wanted = exact.values[m]
        assert found.low <= wanted.value <= found.high
        assert found.value == pytest.approx(wanted.value, abs=0.02)
    wider = [sampled.values[m].half > exact.values[m].half for m in ("m0", "m1")]
    assert all(wider)  # the order matters for these two alone
    assert sampled.imbalance == pytest.approx(exact.imbalance, abs=0.01)
    assert set(sampled.to_json()) == set(exact.to_json())


def test_any_metric_is_divided() -> None:
    answers = THREE
    recall = metric_of(answers.task, "balanced_accuracy")
    found = contribution(answers, metric=recall)
    # One class is there, and its recall is the accuracy.
    assert phi(found) == pytest.approx(phi(contribution(answers)), abs=1e-6)
    assert all(x.low < x.value < x.high for x in found.values.values())


def test_intervals_of_sampled_values_hold_both_causes_in_squares() -> None:
    drawn = orders(THREE.modalities, 4, torch.Generator().manual_seed(1))
    answers = replace(THREE, orders=drawn)
    whole = contribution(THREE).subsets
    accuracies = {frozenset(names.split(" + ")) - {""}: v for names, v in whole.items()}
    of_orders = sampled_shapley_values(
        lambda s: torch.tensor(accuracies[s], dtype=torch.float64), THREE.modalities, drawn
    )
    rows = sample_contributions(answers)
    for m, found in contribution(answers).values.items():
        samples, half = estimate(rows[m]), 1.96 * float(of_orders.standard_error[m])
        low = math.hypot(samples.value - samples.low, half)
        high = math.hypot(samples.high - samples.value, half)
        assert half > 0
        assert (found.low, found.high) == pytest.approx((found.value - low, found.value + high))
