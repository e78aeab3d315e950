"""Every rule of the verdict, on evidence made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from equivox.diagnosis.headroom import Headroom
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.probes import Probe
from equivox.diagnosis.use import Use
from equivox.diagnosis.verdict import (
    BALANCED,
    IMBALANCED,
    THRESHOLDS,
    UNSURE,
    Evidence,
    limit,
    verdict,
)


def sure(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value, value - half, value + half)


def used(share: float) -> Use:
    return Use(sure(0.5 * share), sure(0.5), sure(0.4 * share))


def evidence(
    *,
    gap: Estimate | None = None,
    listening: float = 1.0,
    gain: Estimate | None = None,
    alone: float = 0.8,
    joint: float = 0.9,
    samples: int = 1000,
    faults: Sequence[str] = (),
    probed: bool = True,
) -> Evidence:
    """Of a network with the modality `good`, and `bad`, of which the arguments are."""
    gap = gap or sure(0.0)
    single = {"good": sure(alone), "bad": sure(alone)}
    late = sure(0.9)
    head = Headroom(0.5, single, "good", sure(joint), late, gain or sure(0), sure(-0.1))
    fine = Probe(sure(0.8), sure(0.8), sure(0.0))
    probes = {"good": fine, "bad": Probe(sure(0.8), sure(0.8), gap)} if probed else {}
    late_use = {"good": used(1.0), "bad": used(1.0)}
    return Evidence(
        samples, head, probes, {"good": used(1.0), "bad": used(listening)}, late_use, faults
    )


def test_under_trained_and_ignored_is_neglected() -> None:
    found = verdict(evidence(gap=sure(0.1), listening=0.3))
    assert (found.kind, found.neglected, found.suspect) == (IMBALANCED, ("bad",), "bad")
    known = found.modalities["bad"]
    assert known.listening == pytest.approx(0.3) and known.reliance == pytest.approx(0.3)
    assert "`bad` is neglected: its probe is 0.100 (0.090 to 0.110)" in found.reasons[0]
    assert "30%" in found.reasons[0]


@pytest.mark.parametrize(
    "facts",
    [
        {"gap": sure(0.1), "listening": 1.0},
        {"gap": sure(0.0), "listening": 0.3},
        {"gap": sure(0.019), "listening": 0.3},
        {"gap": sure(0.03, half=0.04), "listening": 0.3},
        {"gap": sure(0.1), "listening": limit("listening")},
    ],
)
def test_one_sign_alone_is_no_neglect(facts: dict[str, Estimate]) -> None:
    found = verdict(evidence(**facts))
    assert (found.kind, found.neglected) == (BALANCED, ())
    assert found.suspect in ("good", "bad")


def test_both_interventions_must_agree() -> None:
    known = evidence(gap=sure(0.1), listening=0.3)
    mixed = Use(sure(0.5 * 0.3), sure(0.5), sure(0.4))
    found = verdict(Evidence(1000, known.headroom, known.probes, {**known.use, "bad": mixed},
                             known.late_use))  # fmt: skip
    assert found.kind == BALANCED and not found.modalities["bad"].ignored


def test_a_modality_that_does_not_move_the_late_fusion_is_not_blamed() -> None:
    known = evidence(gap=sure(0.1), listening=0.0)
    for moved in (sure(0.0), Estimate(1e-6, 5e-7, 2e-6)):  # of that any share says nothing
        late = {**known.late_use, "bad": Use(moved, sure(0.5), moved)}
        found = verdict(Evidence(1000, known.headroom, known.probes, known.use, late))
        bad = found.modalities["bad"]
        assert found.kind == BALANCED and not bad.ignored and bad.heard == 1.0
        assert math.isnan(bad.listening) and math.isnan(bad.reliance)
        assert "but a late fusion hardly moves with it either" in found.reasons[0]


def test_a_better_late_fusion_without_agreement_is_unsure() -> None:
    found = verdict(evidence(gap=sure(0.03, half=0.015), gain=sure(0.05)))
    assert (
        found.kind == UNSURE and "do not agree" in found.reasons[0] and "`bad`" in found.reasons[0]
    )
    nobody = verdict(evidence(gain=sure(0.05)))
    assert nobody.kind == UNSURE and "no modality in particular" in nobody.reasons[0]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"gap": sure(0.06, half=0.055), "listening": 0.1}, "`bad` is ignored, and its probe is"),
        ({"gap": sure(0.022)}, "but the network listens to it"),
    ],
)
def test_one_sign_that_costs_nothing_is_said(facts: dict[str, Any], said: str) -> None:
    found = verdict(evidence(**facts, gain=sure(0.006, half=0.002)))
    assert found.kind == BALANCED and said in found.reasons[0]
    assert "better by 0.006 (0.004 to 0.008) only: less than 0.01" in found.reasons[1]
    unsure = verdict(evidence(**facts, gain=sure(0.006)))
    assert unsure.reasons[1] == "All the same, a late fusion is not better."


def test_a_gain_that_does_not_count_is_said_to_be_there() -> None:
    (reason,) = verdict(evidence(gain=sure(0.006, half=0.002))).reasons
    assert "is better by 0.006 (0.004 to 0.008) only: less than 0.01 does not count" in reason


@pytest.mark.parametrize("gain", [sure(0.009, half=0.001), sure(0.05, half=0.06)])
def test_a_small_or_doubtful_gain_is_none(gain: Estimate) -> None:
    assert verdict(evidence(gain=gain)).kind == BALANCED


def test_far_behind_at_a_cost_is_held_back_though_it_is_listened_to() -> None:
    found = verdict(evidence(gap=sure(0.04), gain=sure(0.02), listening=1.2))
    assert (found.kind, found.neglected, found.held_back) == (IMBALANCED, (), ("bad",))
    assert found.suspect == "bad"
    assert (
        "`bad` is held back" in found.reasons[0]
        and "better than the network by 0.020" in (found.reasons[0])
    )
    both = verdict(evidence(gap=sure(0.04), gain=sure(0.02), listening=0.1))
    assert (both.neglected, both.held_back) == (("bad",), ())


def test_where_one_is_neglected_that_is_what_costs() -> None:
    known = evidence(gap=sure(0.04), gain=sure(0.2), listening=0.1)
    probes = {**known.probes, "good": Probe(sure(0.8), sure(0.84), sure(0.04))}
    found = verdict(replace(known, probes=probes))
    assert (found.neglected, found.held_back) == (("bad",), ())


@pytest.mark.parametrize(
    "facts",
    [
        {"gap": sure(0.025), "gain": sure(0.02)},
        {"gap": sure(0.04), "gain": sure(0.005)},
        {"gap": sure(0.04), "gain": sure(-0.05)},
    ],
)
def test_held_back_needs_the_whole_interval_and_the_cost(facts: dict[str, Estimate]) -> None:
    assert verdict(evidence(**facts)).held_back == ()


def behind(known: Evidence, **ahead: Estimate) -> Evidence:
    """The network moved most by `good`, and by how much the models alone fit better."""
    most = Use(sure(0.6), sure(0.5), sure(0.4))
    return replace(known, use={**known.use, "good": most}, ahead=ahead)


@pytest.mark.parametrize(
    "facts",
    [
        {"gap": sure(0.1), "listening": 0.3, "gain": sure(0.05)},  # neglected otherwise
        {"gap": sure(0.1), "gain": sure(0.05)},  # held back
        {"gain": sure(0.05)},  # nobody in particular
    ],
)
def test_a_network_that_did_not_fit_what_one_modality_can_blames_nobody(
    facts: dict[str, Any],
) -> None:
    before = verdict(behind(evidence(**facts), good=sure(-0.01), bad=sure(0.2)))
    assert not before.underfits and before == verdict(behind(evidence(**facts)))
    found = verdict(behind(evidence(**facts), good=sure(0.06), bad=sure(0.2)))
    assert (found.kind, found.neglected, found.held_back) == (UNSURE, (), ())
    assert found.underfits and "worse by 0.060 (0.050 to 0.070)" in found.reasons[0]
    assert "model of `good` alone" in found.reasons[0]


def test_underfitting_must_be_clear_and_cost_something() -> None:
    neglected = evidence(gap=sure(0.1), listening=0.3, gain=sure(0.05))
    assert verdict(behind(neglected, good=sure(0.045))).kind == IMBALANCED
    free = evidence(gap=sure(0.1), listening=0.3, gain=sure(0.0))
    assert verdict(behind(free, good=sure(0.2))).kind == IMBALANCED


def test_what_comes_before_underfitting() -> None:
    for facts, said in (
        ({"faults": ["it leaks"]}, "it leaks"),
        ({"samples": 199}, "too few"),
        ({"alone": 0.5, "joint": 0.5}, "above chance"),
        ({"alone": 0.5}, "synergistic"),
    ):
        known: dict[str, Any] = {"gain": sure(0.05), **facts}
        found = verdict(behind(evidence(**known), good=sure(0.2)))
        assert said in found.reasons[0] and not found.underfits


def test_the_sentences_name_the_metric() -> None:
    found = verdict(replace(evidence(gap=sure(0.1), listening=0.3), metric="macro F1"))
    assert "and the macro F1 30% as far" in found.reasons[0] and found.metric == "macro F1"


def test_a_synergistic_task_is_said_to_be_one() -> None:
    found = verdict(evidence(alone=0.5, gap=sure(0.1), listening=0.1))
    assert found.kind == BALANCED and found.synergistic and found.neglected == ()
    assert "synergistic" in found.reasons[0]


def test_nothing_above_chance() -> None:
    found = verdict(evidence(alone=0.5, joint=0.5))
    assert found.kind == UNSURE and not found.synergistic
    assert "Nothing is above chance" in found.reasons[0]


def test_faults_of_the_data_come_first() -> None:
    found = verdict(evidence(gap=sure(0.1), listening=0.3, faults=["it leaks", "it is broken"]))
    assert found.kind == UNSURE and found.neglected == ()
    assert [r.partition(": ")[2] for r in found.reasons] == ["it leaks", "it is broken"]
    assert found.suspect == "bad"


def test_few_samples_decide_nothing() -> None:
    found = verdict(evidence(gap=sure(0.1), listening=0.3, samples=199))
    assert found.kind == UNSURE and "199 test samples are too few" in found.reasons[0]
    assert not verdict(evidence(alone=0.5, samples=199)).synergistic


def test_without_probes_nobody_is_neglected() -> None:
    ignored = verdict(evidence(listening=0.3, probed=False))
    assert ignored.kind == UNSURE and "no probe" in ignored.reasons[0]
    assert ignored.suspect == "bad" and math.isnan(ignored.modalities["bad"].gap.value)
    assert verdict(evidence(probed=False)).kind == BALANCED


@pytest.mark.parametrize(
    ("gain", "said"), [(sure(-0.05), True), (sure(0.0), True), (sure(0.1), False)]
)
def test_a_neglect_without_a_gain_is_said_to_cost_nothing_for_sure(
    gain: Estimate, said: bool
) -> None:
    found = verdict(evidence(gap=sure(0.1), listening=0.3, gain=gain))
    assert found.neglected == ("bad",)
    costless = "A late fusion is not better, so nothing shows that the neglect costs anything."
    assert (costless in found.reasons) == said


def test_what_exchanging_does_is_not_guessed() -> None:
    known = evidence(gap=sure(0.1), gain=sure(0.1))
    none = sure(math.nan)
    unknown = {m: Use(none, none, none) for m in known.use}
    found = verdict(replace(known, use=unknown, late_use=unknown))
    assert not found.modalities["bad"].measured and found.held_back == ("bad",)
    assert "what exchanging it does was not measured" in found.reasons[0]
    assert "late fusion hardly moves" not in found.reasons[0]


def test_what_was_not_measured_blames_nobody() -> None:
    nothing = Estimate(math.nan, math.nan, math.nan)
    known = evidence(gap=nothing)
    lost = {**known.use, "bad": Use(nothing, nothing, nothing)}
    found = verdict(Evidence(1000, known.headroom, known.probes, lost, known.late_use))
    assert found.kind == BALANCED and not found.modalities["bad"].ignored


def test_the_worst_of_several_neglected_is_the_suspect() -> None:
    known = evidence(gap=sure(0.2), listening=0.3)
    probes = {**known.probes, "good": Probe(sure(0.8), sure(0.9), sure(0.1))}
    use = {m: used(0.3) for m in known.use}
    found = verdict(Evidence(1000, known.headroom, probes, use, known.late_use))
    assert found.neglected == ("good", "bad") and found.suspect == "bad"
    assert ["neglected" in reason for reason in found.reasons] == [True, True, False]


def test_every_threshold_has_its_meaning_and_source() -> None:
    for each in THRESHOLDS.values():
        assert each.meaning and each.source and each.value > 0


def test_a_late_fusion_that_moves_by_chance_says_nothing() -> None:
    facts = evidence(gap=sure(0.1), listening=0.001)
    chance = Estimate(0.05, -0.01, 0.11)
    unclear = Use(chance, sure(0.5), chance)
    found = verdict(replace(facts, late_use={**facts.late_use, "bad": unclear}))
    assert math.isnan(found.modalities["bad"].listening)
    assert not found.neglected


def test_a_small_gain_counts_where_a_modality_is_ignored() -> None:
    facts = {"gap": sure(0.0), "gain": sure(0.02, half=0.005)}
    assert verdict(evidence(listening=0.3, **facts)).kind == UNSURE
    assert verdict(evidence(listening=1.0, **facts)).kind != UNSURE


def test_the_leading_modality_moves_the_prediction_most() -> None:
    by = {
        "good": Use(sure(0.5), sure(0.5), sure(0.1)),
        "bad": Use(sure(0.3), sure(0.5), sure(0.4)),
    }
    assert replace(evidence(), use=by).leading == "good"
