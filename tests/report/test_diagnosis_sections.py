"""What the sections of a diagnosis say where little, or something else, was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.report.diagnoses import about, balanced, example

from equivox.diagnosis.use import Route
from equivox.report.diagnosis.hurt import hurt_share
from equivox.report.diagnosis.modalities import contributions, use
from equivox.report.diagnosis.verdict import verdict


@pytest.mark.parametrize(
    ("task", "meant"),
    [
        ("MultiLabel(3)", "the F1 of its labels is above 0.5"),
        ("Dense(3)", "more than half of its positions are right"),
        ("Classification(3)", ""),
    ],
)
def test_what_right_means_is_said(task: str, meant: str) -> None:
    found = replace(example(), task=task)
    said = f" A sample is answered rightly where {meant}."
    assert (said in contributions(found)) == bool(meant)
    assert hurt_share(found).endswith(f"wrong (right: {meant})" if meant else "is wrong")


def test_the_last_group_is_that_of_none_only_where_there_is_one() -> None:
    some, none = Route(("hard",), 0.5, 50, about(0.9)), Route((), 0.5, 50, about(0.1))
    said = "In the last group none does"
    assert said in contributions(replace(example(), routing=[some, none]))
    assert said not in contributions(replace(example(), routing=[some]))


def test_few_pairs_of_other_targets_are_said() -> None:
    found = example()
    few = {m: replace(x, pairs=12) for m, x in found.use.items()}
    assert "Only 12 test samples met one with another target" in use(replace(found, use=few))
    many = {m: replace(x, pairs=1200) for m, x in found.use.items()}
    assert "test samples met one with another target" not in use(replace(found, use=many))


def test_what_exchanging_does_is_said_not_to_be_measured() -> None:
    found = balanced()
    known = {m: replace(x, measured=False) for m, x in found.verdict.modalities.items()}
    found = replace(found, verdict=replace(found.verdict, modalities=known))
    assert "what exchanging it does was not measured" in verdict(found)
    assert "not measured" in use(found)
