"""The grid of generated cases: directions on a few of them, and its bookkeeping."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import verdict_grid as grid

from equivox.diagnosis.diagnose import diagnose
from equivox.diagnosis.verdict import THRESHOLDS, verdict


def line(truth: str, seed: int) -> dict[str, Any]:
    """A smaller case's line without its truth, which takes the longest."""
    cases = [*grid.grid(240), *grid.unfinished(20)]
    case = next(c for c in cases if (c.truth, c.seed) == (truth, seed))
    case = replace(case, samples=1400)
    data, _ = grid.made(case)
    found = diagnose(grid.trained(case, data), grid.loaders(case, data), seed=case.seed)
    made = {"case": {"truth": truth, "planted": case.planted}, "evidence": grid.written(found)}
    read = verdict(grid.evidence(json.loads(json.dumps(made))))
    for same in ("kind", "neglected", "held_back", "underfits"):
        assert getattr(read, same) == getattr(found.verdict, same)
    assert read.underfits == (truth == grid.UNFINISHED)
    return made


@pytest.mark.parametrize(
    ("truth", "seed"),
    [(grid.UNDER, 2), (grid.BALANCED_CASE, 0), (grid.LEAK, 0), (grid.UNFINISHED, 0)],
)
def test_the_answer_is_right(truth: str, seed: int) -> None:
    assert grid.answer(line(truth, seed)) in grid.RIGHT[truth]


def test_the_grid_is_the_same_every_time_and_both_halves_have_everything() -> None:
    cases = grid.grid(240)
    assert cases == grid.grid(240)
    assert cases[:20] == grid.grid(20)
    for late in (False, True):
        mine = [case for case in cases if (case.round >= grid.CHOSE) == late]
        assert {case.truth for case in mine} == set(grid.SHARES)
        assert {len(case.specs) for case in mine} == {2, 3, 4}
        assert {case.classes for case in mine} == {2, 3, 6, 10}


def test_what_is_cut_short_has_its_pace_every_time() -> None:
    cases = grid.unfinished(20)
    assert cases[:3] == grid.unfinished(3)
    paces = [grid.pace(case) for case in cases]
    assert paces == [grid.pace(case) for case in cases] and len(set(paces)) > 3
    assert {grid.pace(case) for case in grid.grid(60)} == {grid.WHOLE}


def test_lines_from_before_the_network_itself_was_asked_are_read() -> None:
    lines = Path(grid.__file__).parents[1] / "docs" / "results" / "verdict_grid.jsonl"
    first = json.loads(lines.read_text().partition("\n")[0])
    for modality in first["evidence"]["modalities"].values():
        modality.pop("ahead", None)
    assert not grid.evidence(first).ahead and grid.answer(first) in grid.ANSWERS


def test_a_cut_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    first, second = grid.grid(2)
    whole = json.dumps({"key": first.key, "case": grid.asdict(first)}) + "\n"
    path.write_text(whole + whole[:20])
    done = grid.read(path)
    assert path.read_text() == whole
    assert grid.remaining([first, second], done) == [second]
    done[first.key]["case"]["samples"] += 1
    with pytest.raises(ValueError, match="Found another `balanced 0`"):
        grid.remaining([first, second], done)


def test_other_thresholds_last_for_the_while() -> None:
    before = dict(THRESHOLDS)
    with grid.thresholds({"listening": 0.1}):
        assert THRESHOLDS["listening"].value == 0.1
    assert before == THRESHOLDS


def test_wilson_by_hand() -> None:
    # centre (p + z²/2n) / (1 + z²/n), for 1 of 10 with z = 1.96
    low, high = grid.wilson(1, 10)
    assert low == pytest.approx(0.0179, abs=1e-4)
    assert high == pytest.approx(0.4042, abs=1e-4)


def test_a_case_that_did_not_come_off_is_not_counted() -> None:
    built = {"truth": grid.UNDER, "planted": "hard", "round": 0}
    small, large = ({"case": built, "true": {"gaps": {"hard": gap}}} for gap in (0.019, 0.02))
    short, cut = ({"case": {"truth": grid.UNFINISHED}, "true": {"short": x}} for x in (0.04, 0.06))
    assert (grid.produced(short), grid.produced(cut)) == (False, True)
    assert not grid.produced(small)
    assert grid.produced(large)
    assert grid.rates([small]) == {}
