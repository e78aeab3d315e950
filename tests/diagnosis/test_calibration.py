from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from equivox.diagnosis.answers import BLANKINGS, Answers
from equivox.diagnosis.calibration import calibration, calibration_error, decisions
from equivox.functional.shapley import subsets
from equivox.task import Classification, Dense, MultiLabel, Regression, Task


def answers(task: Task, target: Tensor, said: dict[str, Tensor]) -> Answers:
    """Answers of modalities "a" and "b", by the letters of the subset, under every blanking."""
    rows = len(target)
    logits = {s: said["".join(sorted(s))] for s in subsets(["a", "b"])}
    there = torch.ones(rows, dtype=torch.bool)
    feature = {m: torch.zeros(rows, 1) for m in "ab"}
    return Answers(
        task,
        ("a", "b"),
        target,
        torch.arange(rows),
        dict.fromkeys(BLANKINGS, logits),
        feature,
        {},
        there,
        dict.fromkeys("ab", there),
    )


def said(**logits: list[list[float]]) -> dict[str, Tensor]:
    return {key.strip("_"): torch.tensor(rows) for key, rows in logits.items()}


def test_error_by_hand() -> None:
    # Two bins of two decisions each: |0.5 - 0.9| and |1 - 0.6|, each with half of the weight.
    sure = torch.tensor([0.9, 0.9, 0.6, 0.6])
    right = torch.tensor([True, False, True, True])
    assert calibration_error(sure, right) == pytest.approx(0.4)


def test_bins_are_closed_on_the_right() -> None:
    # 0.2 = 3 / 15 belongs to the bin of 0.15, not to that of 0.25.
    sure = torch.tensor([0.2, 0.15, 0.25], dtype=torch.float64)
    right = torch.tensor([False, True, False])
    assert calibration_error(sure, right) == pytest.approx((1 - 0.35 + 0.25) / 3)


def test_perfect_and_worst_calibration() -> None:
    right = torch.tensor([True, True])
    assert calibration_error(torch.ones(2), right) == 0
    assert calibration_error(torch.ones(2), ~right) == 1
    assert math.isnan(calibration_error(torch.ones(0), right[:0]))


def test_error_does_not_depend_on_the_order() -> None:
    g = torch.Generator().manual_seed(0)
    sure, right = torch.rand(500, generator=g), torch.rand(500, generator=g) < 0.5
    order = torch.randperm(500, generator=g)
    found = calibration_error(sure[order], right[order])
    assert found == pytest.approx(calibration_error(sure, right))


def test_honest_confidence_has_a_small_error() -> None:
    g = torch.Generator().manual_seed(0)
    sure = torch.rand(20_000, generator=g) / 2 + 0.5
    right = torch.rand(20_000, generator=g) < sure
    assert calibration_error(sure, right) < 0.02
    assert calibration_error(sure, torch.rand(20_000, generator=g) < 0.5) > 0.2


def test_violations_by_hand() -> None:
    # The numbers of the specification of CML: confidence rises for the first and the third sample.
    full = [[2.0, 0, 0], [0, 1, 0], [0.2, 0, 0]]
    part = [[3.0, 0, 0], [0, 0.5, 0], [0, 1, 0]]
    rows = said(ab=full, a=part, b=full, _=[[0.0, 0, 0]] * 3)
    found = calibration(answers(Classification(3), torch.tensor([0, 1, 1]), rows))
    assert found.violations["b"].value == pytest.approx(2 / 3)
    assert found.violations["a"].value == 0  # what stays the same does not rise
    assert found.violations["a"].high > 0.5  # of three samples
    assert list(found.error) == ["", "a", "b", "a + b"]
    third = 1 / (math.exp(0.2) + 2) * math.exp(0.2)
    gaps = [1 - 0.786986, 1 - 0.576117, third]
    assert found.error["a + b"] == pytest.approx(sum(gaps) / 3, abs=1e-5)


def test_labels_are_decisions_of_their_own() -> None:
    # sigmoid(2) = 0.880797; "no" at logit -2 is as sure, and right where the label is absent.
    logits, target = torch.tensor([[2.0, -2.0]]), torch.tensor([[1, 1]])
    sure, right = decisions(MultiLabel(2), logits, target)
    assert sure.tolist() == pytest.approx([0.880797, 0.880797], abs=1e-6)
    assert right.tolist() == [True, False]


def test_ignored_positions_and_nan_are_left_out() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[0, 0, 0] = torch.nan
    target = torch.zeros(2, 4, dtype=torch.long)
    target[1, 2:] = 255
    sure, right = decisions(Dense(3), logits, target)
    assert len(sure) == len(right) == 5


def test_distributions_as_targets() -> None:
    _, right = decisions(Classification(2), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.2, 0.8]]))
    assert right.tolist() == [False]


def test_regression_has_no_confidence() -> None:
    rows = dict.fromkeys(("ab", "a", "b", ""), torch.zeros(3, 1))
    found = calibration(answers(Regression(), torch.arange(3.0), rows))
    assert found.error == {} and found.violations == {}
    assert found.to_json() == {"blanking": "zero", "error": {}, "violations": {}}
