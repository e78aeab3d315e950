"""Purity: the worked example, its limits and its invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.functional import purity
from equivox.functional.clustering import cluster_purity

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=40)


def test_worked_example() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    assert float(purity(labels, torch.tensor([0, 0, 1, 1, 1, 1, 2, 0]))) == 0.75
    assert float(purity(labels, labels)) == 1.0


@given(pairs=PAIRS)
def test_equals_a_loop(pairs: list[tuple[int, int]]) -> None:
    labels, clusters = zip(*pairs, strict=True)
    members = {k: [label for label, c in pairs if c == k] for k in clusters}
    expected = sum(max(map(m.count, m)) for m in members.values()) / len(pairs)
    assert float(purity(torch.tensor(labels), torch.tensor(clusters))) == pytest.approx(expected)


@given(pairs=PAIRS, names=st.permutations(range(7)))
def test_names_of_clusters_do_not_matter(pairs: list[tuple[int, int]], names: list[int]) -> None:
    labels, clusters = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert float(purity(labels, clusters)) == float(purity(labels, torch.tensor(names)[clusters]))


def test_one_cluster_gives_the_most_frequent_label() -> None:
    assert float(purity(torch.tensor([0, 1, 1, 2]), torch.zeros(4).long())) == 0.5


def test_no_samples() -> None:
    empty = torch.zeros(0).long()
    with pytest.raises(ValueError, match="at least one sample"):
        purity(empty, empty)


def test_purity_of_separated_classes_does_not_depend_on_scales_or_constants() -> None:
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 2) * 0.01 + labels[:, None]
    noise = torch.randn(60, 1) * 1e-3
    assert cluster_purity(features, labels, 3) == 1
    assert cluster_purity(features * torch.tensor([1e3, 1e-3]), labels, 3) == 1
    assert cluster_purity(torch.cat([features, torch.ones(60, 1)], 1), labels, 3) == 1
    assert cluster_purity(noise, labels, 3) < 0.7
    assert cluster_purity(torch.zeros(60, 2), labels, 3) == pytest.approx(1 / 3)


def test_every_cluster_needs_a_sample() -> None:
    with pytest.raises(ValueError, match="validation data"):
        cluster_purity(torch.zeros(2, 1), torch.tensor([0, 1]), 3)
