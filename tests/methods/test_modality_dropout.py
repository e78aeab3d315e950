"""Modality dropout: how often modalities fall, and that one always stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equivox import Balancer
from equivox.methods.yardstick.modality_dropout import ModalityDropout, kept_modalities
from equivox.step import Step
from equivox.testing.problem import Problem


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.7, 1.0])
def test_rates(modalities: int, p: float) -> None:
    draws = torch.rand(40_000, modalities, generator=torch.Generator().manual_seed(0))
    kept = kept_modalities(draws, p)
    assert kept.any(1).all()
    expected = p - p**modalities / modalities
    torch.testing.assert_close(
        1 - kept.float().mean(0), torch.full((modalities,), expected), atol=0.01, rtol=0
    )


def test_at_one_exactly_one_stays() -> None:
    draws = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    assert (kept_modalities(draws, 1.0).sum(1) == 1).all()


def features_and_blanked(p: float, present: dict[str, Tensor]) -> tuple[dict, dict]:
    problem = Problem(modalities=3)
    balancer: Balancer = problem.balancer(ModalityDropout(p=p))
    inputs, target, _ = next(iter(problem.loader()))
    seen = {}

    def spy(features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        seen["before"] = features
        seen["after"] = ModalityDropout.features(balancer.method, features, step)
        return seen["after"]

    balancer.method.features = spy
    balancer(inputs | ({"present": present} if present else {}), target)
    return seen["before"], seen["after"]


def test_features_are_kept_or_blank() -> None:
    before, after = features_and_blanked(0.5, {})
    dropped = 0
    for name, z in before.items():
        same, blank = (after[name] == z).all(1), (after[name] == 0).all(1)
        assert (same | blank).all()
        dropped += int(blank.sum())
    assert 0 < dropped < 16


def test_what_a_sample_lacks_is_not_what_it_keeps() -> None:
    there = {"audio": torch.tensor([True, False] * 4)}
    _, after = features_and_blanked(1.0, there)
    rest = torch.stack([(after[name] != 0).any(1) for name in ("video", "text")]).any(0)
    assert rest[1::2].all()


def test_it_ignores_the_global_generator() -> None:
    problem = Problem()
    inputs, target, _ = next(iter(problem.loader()))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(problem.balancer(ModalityDropout(p=0.5))(inputs, target))
    assert torch.equal(*found)


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_bad_p_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="`p` should lie"):
        ModalityDropout(p=p)
