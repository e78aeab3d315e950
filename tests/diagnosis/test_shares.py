from __future__ import annotations

import math

import pytest
import torch

from equivox.diagnosis.metric import estimate
from equivox.diagnosis.shares import share


def test_by_hand() -> None:
    # centre (p + z^2 / 2n) / (1 + z^2 / n), for 1 of 10 with z = 1.96
    found = share(torch.arange(10) == 3)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.0179, 0.4042), abs=1e-4)


def test_equal_rows_are_not_certain() -> None:
    few, many = share(torch.ones(3)), share(torch.ones(300))
    assert (few.value, few.high) == (1.0, 1.0) and few.low == pytest.approx(0.4385, abs=1e-4)
    assert few.low < many.low < 1
    assert share(torch.zeros(3)).high == pytest.approx(1 - few.low)


def test_parts_of_a_sample_are_no_share_of_samples() -> None:
    rows = torch.tensor([0.5, 1.0, 0.0])
    assert share(rows) == estimate(rows)


def test_of_no_samples() -> None:
    assert math.isnan(share(torch.zeros(0)).low)


def test_coverage() -> None:
    g = torch.Generator().manual_seed(0)
    drawn = [share(torch.rand(20, generator=g) < 0.95) for _ in range(400)]
    assert sum(x.low <= 0.95 <= x.high for x in drawn) > 0.9 * 400
