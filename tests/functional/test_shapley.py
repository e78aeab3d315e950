"""Exact and sampled Shapley values: axioms, worked examples, and shapiq as the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapiq import ExactComputer
from torch import Tensor

from equivox.functional import (
    imbalance,
    interactions,
    sampled_shapley_values,
    shapley_values,
    subsets,
)

Game = dict[frozenset[str], Tensor]
SHAPES: list[tuple[int, ...]] = [(), (5,), (4, 3)]


def names(count: int) -> list[str]:
    return [f"m{i}" for i in range(count)]


def game(modalities: Sequence[str], seed: int = 0, shape: tuple[int, ...] = ()) -> Game:
    generator = torch.Generator().manual_seed(seed)
    return {
        subset: torch.randn(shape, generator=generator, dtype=torch.float64)
        for subset in subsets(modalities)
    }


def example(**values: float) -> Game:
    """A game from keyword arguments such as `a=.5, av=.7`; `none` is the empty set."""
    return {
        frozenset(() if key == "none" else key): torch.tensor(value, dtype=torch.float64)
        for key, value in values.items()
    }


TWO = example(none=0.10, a=0.55, b=0.30, ab=0.65)
THREE = example(none=0.50, a=0.55, b=0.52, c=0.75, ab=0.58, ac=0.78, bc=0.76, abc=0.80)


def test_subsets_come_once_each_by_size() -> None:
    found = subsets(names(4))
    assert len(set(found)) == len(found) == 16
    assert [len(subset) for subset in found] == sorted(len(subset) for subset in found)


def test_values_of_the_worked_examples() -> None:
    two, three = shapley_values(TWO, "ab"), shapley_values(THREE, "abc")
    assert [float(v) for v in two.values()] == pytest.approx([0.40, 0.15], abs=1e-12)
    assert [float(v) for v in three.values()] == pytest.approx([0.045, 0.020, 0.235], abs=1e-12)


def test_imbalance_of_the_worked_examples() -> None:
    two, three = imbalance(shapley_values(TWO, "ab")), imbalance(shapley_values(THREE, "abc"))
    assert [float(x) for x in two] == pytest.approx([0.25, 0.454545, 0.25], abs=1e-6)
    assert float(three.absolute) == pytest.approx(0.143333, abs=1e-6)
    assert float(three.relative) == pytest.approx(0.143333 / 0.30, abs=1e-5)
    assert float(three.spread) == pytest.approx(0.215, abs=1e-12)


def test_interactions_of_the_worked_examples() -> None:
    assert float(interactions(TWO, "ab")["a", "b"]) == pytest.approx(-0.10, abs=1e-12)
    three = interactions(THREE, "abc")
    assert list(three) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [float(v) for v in three.values()] == pytest.approx([0.01, -0.02, -0.01], abs=1e-12)


def test_mono_modal_responses_share_the_logits_out() -> None:
    values = {
        frozenset("av"): torch.tensor([[2.0, 0.5, -1.0], [0.2, 1.0, 0.3]]),
        frozenset("a"): torch.tensor([[1.5, 0.2, -0.5], [-0.1, 0.6, 0.2]]),
        frozenset("v"): torch.tensor([[0.6, 0.4, -0.4], [0.3, 0.1, 0.2]]),
    }
    phi = shapley_values(values, "av")
    torch.testing.assert_close(phi["a"], torch.tensor([[1.45, 0.15, -0.55], [-0.10, 0.75, 0.15]]))
    torch.testing.assert_close(phi["v"], torch.tensor([[0.55, 0.35, -0.45], [0.30, 0.25, 0.15]]))
    torch.testing.assert_close(phi["a"] + phi["v"], values[frozenset("av")], rtol=0, atol=2e-7)


def test_sample_valuation_of_every_pattern_of_correctness() -> None:
    """v(S) = |S| where S is right, no empty set: the eight cases of modality valuation."""
    right = torch.tensor(
        [[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]
    ).double()
    values = {
        frozenset("a"): right[:, 0],
        frozenset("v"): right[:, 1],
        frozenset("av"): 2 * right[:, 2],
    }
    phi = shapley_values(values, "av")
    assert phi["a"].tolist() == [1, 1.5, 0.5, 1, 0, 0.5, -0.5, 0]
    assert phi["v"].tolist() == [1, 0.5, 1.5, 1, 0, -0.5, 0.5, 0]


@given(count=st.integers(1, 5), seed=st.integers(0, 999), shape=st.sampled_from(SHAPES))
def test_efficiency(count: int, seed: int, shape: tuple[int, ...]) -> None:
    modalities = names(count)
    v = game(modalities, seed, shape)
    total = torch.stack(list(shapley_values(v, modalities).values())).sum(0)
    torch.testing.assert_close(total, v[frozenset(modalities)] - v[frozenset()])


@given(count=st.integers(2, 5), seed=st.integers(0, 999))
def test_interchangeable_modalities_are_worth_the_same(count: int, seed: int) -> None:
    modalities = names(count)
    v = game(modalities, seed)
    swap = {"m0": "m1", "m1": "m0"}
    mirrored = {s: v[s] + v[frozenset(swap.get(m, m) for m in s)] for s in v}
    phi = shapley_values(mirrored, modalities)
    torch.testing.assert_close(phi["m0"], phi["m1"])
    assert float(imbalance({m: phi[m] for m in ("m0", "m1")}).absolute) < 1e-12


@given(count=st.integers(2, 5), seed=st.integers(0, 999))
def test_an_ignored_modality_is_worth_nothing(count: int, seed: int) -> None:
    modalities = names(count)
    v = game(modalities, seed)
    ignoring = {s: v[s - {"m0"}] for s in v}
    assert float(shapley_values(ignoring, modalities)["m0"].abs()) < 1e-12
    pairs = interactions(ignoring, modalities)
    assert all(abs(float(value)) < 1e-12 for pair, value in pairs.items() if "m0" in pair)


@given(seed=st.integers(0, 999), order=st.permutations(names(4)))
def test_order_of_modalities_does_not_matter(seed: int, order: list[str]) -> None:
    v = game(names(4), seed)
    phi, other = shapley_values(v, names(4)), shapley_values(v, order)
    assert list(other) == order
    for name in order:
        torch.testing.assert_close(phi[name], other[name])
    pairs = {frozenset(pair): value for pair, value in interactions(v, names(4)).items()}
    for pair, value in interactions(v, order).items():
        torch.testing.assert_close(value, pairs[frozenset(pair)])


@given(seed=st.integers(0, 999), factor=st.floats(-10, 10), shift=st.floats(-10, 10))
def test_linearity_and_independence_of_the_origin(seed: int, factor: float, shift: float) -> None:
    v = game(names(3), seed)
    phi = shapley_values(v, names(3))
    changed = shapley_values({s: factor * x + shift for s, x in v.items()}, names(3))
    for name in phi:
        torch.testing.assert_close(changed[name], factor * phi[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_agree_with_shapiq(count: int) -> None:
    modalities = names(count)
    v = game(modalities, seed=count)

    def play(coalitions: np.ndarray) -> np.ndarray:
        present = [
            frozenset(m for m, on in zip(modalities, row, strict=True) if on) for row in coalitions
        ]
        return np.array([float(v[s]) for s in present])

    oracle = ExactComputer(play, n_players=count)
    values, pairs = oracle("SV", 1), oracle("SII", 2)
    for i, phi in enumerate(shapley_values(v, modalities).values()):
        assert float(phi) == pytest.approx(values[(i,)], abs=1e-10)
    for (i, j), value in interactions(v, modalities).items():
        key = (modalities.index(i), modalities.index(j))
        assert float(value) == pytest.approx(pairs[key], abs=1e-10)


def test_gradient_of_each_response_is_its_shapley_weight() -> None:
    """dL/dv(all) = (k1 + k2) g / 2 and dL/dv(1) = (k1 - k2) g / 2, as AGM needs."""
    v = {s: x.requires_grad_() for s, x in game("ab", shape=(3,)).items()}
    phi = shapley_values(v, "ab")
    (0.4 * phi["a"] + 1.7 * phi["b"]).sum().backward()
    expected = {"ab": 1.05, "a": -0.65, "b": 0.65, "": -1.05}
    for subset, weight in expected.items():
        torch.testing.assert_close(v[frozenset(subset)].grad, torch.full((3,), weight).double())


def test_an_absent_empty_set_counts_as_zero() -> None:
    v = game("ab")
    zero = v | {frozenset(): torch.zeros((), dtype=torch.float64)}
    absent = {s: x for s, x in v.items() if s}
    assert shapley_values(absent, "ab") == shapley_values(zero, "ab")
    assert interactions(absent, "ab") == interactions(zero, "ab")


def test_additive_games_have_no_interaction() -> None:
    worth = {"a": 0.3, "b": -0.2, "c": 1.5}
    v = {s: torch.tensor(sum(worth[m] for m in s), dtype=torch.float64) for s in subsets("abc")}
    assert all(abs(float(x)) < 1e-12 for x in interactions(v, "abc").values())
    assert {m: round(float(x), 12) for m, x in shapley_values(v, "abc").items()} == worth


def test_imbalance_without_contributions_or_with_one_modality() -> None:
    nothing = imbalance({"a": torch.zeros(2), "b": torch.zeros(2)})
    assert all(torch.equal(x, torch.zeros(2)) for x in nothing)
    assert all(float(x) == 0 for x in imbalance({"a": torch.tensor(0.7)}))


def test_imbalance_is_computed_for_each_sample() -> None:
    phi = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 0.0])}
    assert imbalance(phi).relative.tolist() == [1.0, 0.0]


def counted(v: Game) -> tuple[Callable[[frozenset[str]], Tensor], list[frozenset[str]]]:
    calls: list[frozenset[str]] = []

    def value(subset: frozenset[str]) -> Tensor:
        calls.append(subset)
        return v[subset]

    return value, calls


def test_sampled_values_lie_within_their_error() -> None:
    v = game(names(6), seed=3)
    value, calls = counted(v)
    sampled = sampled_shapley_values(value, names(6), 400, torch.Generator().manual_seed(0))
    assert len(calls) == len(set(calls)) <= 64
    for name, exact in shapley_values(v, names(6)).items():
        error = float(sampled.standard_error[name])
        assert 0 < error < 0.12
        assert abs(float(sampled.values[name] - exact)) < 4 * error


def test_sampled_standard_error_is_the_spread_over_repetitions() -> None:
    v = game(names(4), seed=5)
    runs = [
        sampled_shapley_values(v.__getitem__, names(4), 20, torch.Generator().manual_seed(seed))
        for seed in range(200)
    ]
    for name in names(4):
        spread = torch.stack([run.values[name] for run in runs]).std()
        claimed = torch.stack([run.standard_error[name] for run in runs]).square().mean().sqrt()
        assert float(claimed / spread) == pytest.approx(1.0, abs=4 / sqrt(2 * 200))


@given(seed=st.integers(0, 99), shape=st.sampled_from(SHAPES))
def test_sampled_values_are_efficient(seed: int, shape: tuple[int, ...]) -> None:
    v = game(names(5), seed, shape)
    generator = torch.Generator().manual_seed(seed)
    sampled = sampled_shapley_values(v.__getitem__, names(5), 3, generator)
    total = torch.stack(list(sampled.values.values())).sum(0)
    torch.testing.assert_close(total, v[frozenset(names(5))] - v[frozenset()])


def test_sampling_repeats_with_its_generator() -> None:
    v = game(names(5))
    first, second = (
        sampled_shapley_values(v.__getitem__, names(5), 4, torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert first == second


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"non-empty subset.*\['a'\]"):
        shapley_values({frozenset("ab"): torch.ones(()), frozenset("b"): torch.ones(())}, "ab")
    with pytest.raises(ValueError, match="distinct names"):
        subsets(["audio", "audio"])
    with pytest.raises(ValueError, match="`permutations = 1`"):
        sampled_shapley_values(lambda _: torch.ones(()), "ab", 1)
