"""The Fisher trace and its growth: worked examples, scaling, order of the batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.functional.fisher import add_squares_, fisher_trace, relative_growth

NUMBERS = st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6)


def test_the_trace_by_hand() -> None:
    totals = [torch.zeros(2), torch.zeros(1, 2)]
    add_squares_(totals, [torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 0.0]])])
    add_squares_(totals, [torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0]])])
    assert [t.tolist() for t in totals] == [[2.0, 4.0], [[10.0, 0.0]]]
    assert fisher_trace(totals) == 8.0


@given(first=NUMBERS, second=NUMBERS, factor=st.floats(0.5, 4))
def test_order_does_not_matter_and_scale_is_squared(
    first: list[float], second: list[float], factor: float
) -> None:
    def trace(scale: float, *batches: list[float]) -> torch.Tensor:
        totals = [torch.zeros(2, 2), torch.zeros(2)]
        for batch in batches:
            g = scale * torch.tensor(batch)
            add_squares_(totals, [g[:4].view(2, 2), g[4:]])
        return fisher_trace(totals)

    torch.testing.assert_close(trace(1.0, first, second), trace(1.0, second, first))
    expected = factor**2 * trace(1.0, first, second)
    torch.testing.assert_close(trace(factor, first, second), expected, rtol=1e-4, atol=1e-6)
    assert trace(1.0, first, second) >= trace(1.0, first)


def test_squares_are_added_in_full_precision() -> None:
    totals = [torch.zeros(1)]
    for _ in range(512):  # bfloat16 would stop growing at 256
        add_squares_(totals, [torch.ones(1, dtype=torch.bfloat16)])
    assert fisher_trace(totals) == 512
    assert fisher_trace([]) == 0


def test_growth_of_the_worked_example() -> None:
    assert relative_growth(torch.tensor([2.0, 3.0])).item() == pytest.approx(1 / 3)
    assert relative_growth(torch.tensor([3.0, 3.1])).item() == pytest.approx(0.032258, abs=1e-6)


def test_smoothed_growth_of_the_released_code() -> None:
    history = [1.0, 4.0, 5.0, 4.0, 3.0, 2.5] + [2.0] * 5
    expected = [1, 1, 0.8, 0.5, 0.2857, 0.1765, 0.1282, 0.0930, 0.0851, 0.0784, 0.0727, 0.0351]
    found = []
    for epoch in range(12):
        traces = torch.tensor([0.0] * 11 + history[:epoch])[-11:]
        found.append(relative_growth(traces, smooth=10, undefined=1.0).item())
    assert found == pytest.approx(expected, abs=6e-5)


@given(traces=st.lists(st.floats(0.125, 64, width=32), min_size=4, max_size=4))
def test_growth_is_below_one_and_scale_free(traces: list[float]) -> None:
    x = torch.tensor(traces)
    for smooth in (1, 3):
        growth = relative_growth(x, smooth)
        assert growth <= 1
        torch.testing.assert_close(relative_growth(8 * x, smooth), growth)


def test_no_trace_gives_what_is_asked_for() -> None:
    assert relative_growth(torch.zeros(2)) == 0
    assert relative_growth(torch.zeros(2), undefined=1.0) == 1


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one gradient for each total"):
        add_squares_([torch.zeros(1)], [])
    with pytest.raises(ValueError, match="`smooth \\+ 1` values"):
        relative_growth(torch.ones(2), smooth=2)
