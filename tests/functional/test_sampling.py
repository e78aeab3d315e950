"""Stratified draws: as many as asked, in proportion to the classes, the same every time."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.functional.sampling import stratified


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=60), count=st.integers(1, 70))
def test_draws_are_distinct_and_in_proportion(labels: list[int], count: int) -> None:
    y = torch.tensor(labels)
    drawn = stratified(y, count)
    assert len(drawn) == len(drawn.unique()) == min(count, len(labels))
    assert torch.equal(drawn, stratified(y, count))
    share = y.bincount(minlength=4) * len(drawn) / len(labels)
    assert ((y[drawn].bincount(minlength=4) - share).abs() <= 1).all()
