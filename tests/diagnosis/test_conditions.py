"""Conditions on a diagnosis: how they are written, and what they compare with."""

from __future__ import annotations

import pytest

from equivox.diagnosis.conditions import SHORT, Condition, condition, flat, named


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("imbalance>0.3", Condition("imbalance", ">", 0.3)),
        (" headroom.gain.low <= -1e-2 ", Condition("headroom.gain.low", "<=", -0.01)),
        ("faults != 0", Condition("faults", "!=", 0.0)),
        ("gap>nan", None),
        ("gap>0.1>0.2", None),
        ("gap", None),
        ("gap=0.1", None),
        ("gap>a lot", None),
        ("imbalanse>0.1", None),
    ],
)
def test_conditions_are_read(text: str, wanted: Condition | None) -> None:
    if wanted is not None:
        assert condition(text) == wanted
        return
    with pytest.raises(ValueError, match=r"A condition (should be written|is on)"):
        condition(text)


PLAIN = {
    "contributions": {"zero": {"imbalance": 0.25, "relative": 0.45}},
    "probes": {"a": {"gap": {"value": -0.2}}, "b": {"gap": {"value": 0.1, "low": None}}},
    "verdict": {"neglected": ["b"], "held_back": []},
    "headroom": {
        "gain": {"value": 0.02},
        "single_gain": {"value": 0.04},
        "joint": {"value": 0.8},
        "late_fusion": {"value": 0.82},
        "chance": 0.5,
        "alarm": True,
    },
    "data": [{"severity": "fault"}, {"severity": "fine"}, {"severity": "fault"}],
}


def test_short_names_by_hand() -> None:
    wanted = {
        "imbalance": 0.25, "relative": 0.45, "gap": 0.1, "neglected": 1, "gain": 0.02,
        "single_gain": 0.04, "headroom": 0.04, "joint": 0.8, "late_fusion": 0.82, "chance": 0.5,
        "faults": 2, "held_back": 0,
    }  # fmt: skip
    assert {name: named(PLAIN, name) for name in SHORT} == wanted
    assert named(PLAIN, "probes.a.gap.value") == -0.2
    assert named(PLAIN, "headroom.alarm") == 1
    assert flat(PLAIN)["probes.b.gap.low"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("probes.b.gap.low", "Found that `probes.b.gap.low` was not"),
        ("probes.a.gap.valeu", "Did you mean `probes.a.gap.value`?"),
    ],
)
def test_what_there_is_not(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named(PLAIN, name)
    with pytest.raises(ValueError, match="Found that `gap` was not"):
        named(PLAIN | {"probes": {}}, "gap")
