"""Ratios to the other modalities: OGM-GE's and AGM's examples, ties, order, scale."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.functional import mean_of_others, ratio_to_others
from equivox.functional.discrepancy import (
    lead_over_worse,
    regulation_strength,
    share_of_others,
    weak_modality,
)

SCORES = st.lists(st.floats(0.0625, 128, width=32), min_size=2, max_size=6)


def named(scores: list[float]) -> dict[str, torch.Tensor]:
    return {f"m{i}": torch.tensor(score) for i, score in enumerate(scores)}


def test_ratio_of_the_worked_example() -> None:
    audio, video = torch.tensor([0.623391, 0.658553]), torch.tensor([0.376683, 0.308261])
    rho = ratio_to_others({"audio": audio.sum(), "video": video.sum()})
    assert float(rho["audio"]) == pytest.approx(1.871601, abs=6e-6)
    assert float(rho["video"]) == pytest.approx(0.534302, abs=3e-6)


def test_three_modalities() -> None:
    rho = ratio_to_others(named([1.0, 2.0, 4.0]))
    assert [float(x) for x in rho.values()] == pytest.approx([0.375, 1.25, 3.0])
    others = mean_of_others(named([0.8, 1.1, 0.5]))
    ratios = [
        float(torch.exp(o - s)) for o, s in zip(others.values(), (0.8, 1.1, 0.5), strict=True)
    ]
    assert ratios == pytest.approx([1.0, 0.637628, 1.568312], abs=1e-6)


@given(scores=SCORES)
def test_the_last_modality_is_never_ahead(scores: list[float]) -> None:
    rho = ratio_to_others(named(scores))
    assert float(rho[f"m{scores.index(min(scores))}"]) <= 1.0
    assert float(rho[f"m{scores.index(max(scores))}"]) >= 1.0 - 2e-6


@given(score=st.floats(2**-20, 2**20, width=32), count=st.integers(2, 8))
def test_a_tie_puts_nobody_ahead(score: float, count: int) -> None:
    for rho in ratio_to_others(named([score] * count)).values():
        assert 0.98 < float(rho) <= 1.0


@given(score=SCORES, factor=st.floats(0.5, 100))
def test_scale_does_not_matter(score: list[float], factor: float) -> None:
    rho, scaled = ratio_to_others(named(score)), ratio_to_others(named([factor * s for s in score]))
    for name in rho:
        torch.testing.assert_close(rho[name], scaled[name], rtol=1e-5, atol=0)


@given(scores=st.lists(st.floats(0.1, 10), min_size=4, max_size=4), order=st.permutations(range(4)))
def test_permuting_modalities_permutes_results(scores: list[float], order: list[int]) -> None:
    original = named(scores)
    permuted = {f"m{i}": original[f"m{i}"] for i in order}
    for function in (ratio_to_others, mean_of_others):
        expected, found = function(original), function(permuted)
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name])


def test_zero_scores_stay_finite() -> None:
    rho = ratio_to_others(named([1.0, 0.0]))
    assert float(rho["m0"]) == pytest.approx(1e8)
    assert float(rho["m1"]) == 0.0


def test_a_single_modality_is_compared_with_itself() -> None:
    alone = {"audio": torch.tensor(0.7)}
    assert mean_of_others(alone) == alone
    assert float(ratio_to_others(alone)["audio"]) == pytest.approx(1.0)


def test_scores_of_any_shape() -> None:
    rho = ratio_to_others({"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0, 2.0])})
    torch.testing.assert_close(rho["a"], torch.tensor([0.5, 2.0]))


def test_dead_zone_and_who_is_weak() -> None:
    for r, weak in ((0.99, None), (1.0, None), (1.01, None), (0.989, "a"), (1.011, "b")):
        assert weak_modality({"a": r, "b": 1.0}) == weak
    assert weak_modality({"a": 0.9, "b": 0.3, "c": 0.5}) == "b"
    assert weak_modality({"a": 0.5, "b": 0.5, "c": 0.5}) is None
    assert weak_modality({"a": 0.9}) is None
    assert weak_modality({"a": 0.0, "b": 0.0}) is None
    assert weak_modality({"a": 0.5, "b": 0.0}) == "b"


@given(scores=st.lists(st.floats(0.125, 8), min_size=3, max_size=6), factor=st.floats(0.125, 8))
def test_who_is_weak_depends_on_neither_scale_nor_order(scores: list[float], factor: float) -> None:
    named = {f"m{i}": score for i, score in enumerate(scores)}
    weak = weak_modality(named, tau=0.0)
    if weak is None:
        assert max(scores) == pytest.approx(min(scores))
    else:
        assert named[weak] == min(scores)
        scaled = weak_modality({m: factor * x for m, x in named.items()}, tau=0.0)
        assert scaled is None or named[scaled] == pytest.approx(min(scores))
        turned = weak_modality(dict(reversed(named.items())), tau=0.0)
        assert turned is not None and named[turned] == min(scores)


@given(SCORES)
def test_shares_of_the_others_add_up_to_one_less(gains: list[float]) -> None:
    shares = share_of_others(named(gains))
    assert float(sum(shares.values())) == pytest.approx(len(gains) - 1, abs=1e-6)
    backwards = share_of_others(dict(reversed(named(gains).items())))
    assert all(torch.isclose(backwards[m], b) for m, b in shares.items())


@given(SCORES)
def test_leads_do_not_depend_on_the_zero_of_the_scores(scores: list[float]) -> None:
    found = lead_over_worse(named(scores))
    moved = lead_over_worse(named([score - 200 for score in scores]))
    for m, lead in found.items():
        assert lead >= 0
        torch.testing.assert_close(moved[m], lead, rtol=1e-4, atol=1e-3)
    assert found[min(named(scores), key=lambda m: named(scores)[m])] == 0


def test_regulation_grows_with_the_lead_up_to_its_bound() -> None:
    delta = torch.linspace(0, 20, 50)
    alpha = regulation_strength(delta, beta=0.9)
    assert alpha[0] == 0 and (alpha.diff() >= 0).all()
    torch.testing.assert_close(alpha[-1], torch.tensor(0.9).exp())
