"""Dropping whole modalities: who stays, the expected share, and the features that are left."""

from __future__ import annotations

import pytest
import torch

from equivox.functional.dropout import dropped, dropped_fraction, kept_pathways


def test_frequency_of_drops() -> None:
    draws = torch.rand(10_000, 2, generator=torch.Generator().manual_seed(0))
    droppable, there = torch.tensor([True, False]), torch.ones(1, 2, dtype=torch.bool)
    kept = torch.cat([kept_pathways(u, 0.8, droppable, there) for u in draws])
    assert 0.788 <= 1 - kept[:, 0].float().mean().item() <= 0.812
    assert kept[:, 1].all()


def test_one_stays_and_each_is_equally_likely() -> None:
    draws = torch.rand(6_000, 3, generator=torch.Generator().manual_seed(0))
    every, there = torch.ones(3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    kept = torch.cat([kept_pathways(u, 1.0, every, there) for u in draws])
    assert (kept.sum(1) == 1).all()
    torch.testing.assert_close(kept.float().mean(0), torch.full((3,), 1 / 3), rtol=0, atol=0.02)


def test_a_sample_without_the_others_keeps_what_it_has() -> None:
    there = torch.tensor([[True, True], [True, False]])
    kept = kept_pathways(torch.tensor([0.1, 0.9]), 0.8, torch.tensor([True, False]), there)
    assert kept.tolist() == [[False, True], [True, False]]


def test_theta_counts_features() -> None:
    q = {"audio": torch.tensor(0.5), "video": torch.tensor(0.0)}
    assert dropped_fraction(q, {"audio": 30, "video": 10}).item() == pytest.approx(0.375)


def test_features_keep_their_expectation() -> None:
    draw = torch.Generator().manual_seed(0)
    q = {"a": torch.tensor(0.4), "b": torch.tensor(0.4)}
    z = {m: torch.ones(20_000, 2) for m in q}
    kept = {m: torch.rand(20_000, generator=draw) >= share for m, share in q.items()}
    found = dropped(z, kept, dropped_fraction(q, {"a": 2, "b": 2}))
    for x in found.values():
        torch.testing.assert_close(x.mean(0), torch.ones(2), rtol=0, atol=0.03)
        assert ((x == 0) | (x > 1)).all()
