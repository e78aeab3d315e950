"""Speeds of branches: sums, means, scale, order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.functional.learning_rates import lag, running_mean, speed_ratios

POSITIVE = st.lists(st.floats(0.0625, 64, width=32), min_size=2, max_size=5)


@given(losses=POSITIVE, scale=st.floats(0.125, 8))
def test_lag_has_mean_one_and_no_unit(losses: list[float], scale: float) -> None:
    e, start = torch.tensor(losses), torch.tensor(losses).flip(0).sqrt()
    rho = lag(e, start)
    torch.testing.assert_close(rho.mean(), torch.ones(()))
    torch.testing.assert_close(lag(scale * e, start), rho)
    torch.testing.assert_close(lag(e.flip(0), start.flip(0)), rho.flip(0))


@given(gains=POSITIVE)
def test_speed_ratios_add_up_to_one_in_any_order(gains: list[float]) -> None:
    gained = {f"m{i}": torch.tensor(g) for i, g in enumerate(gains)}
    over = {m: g.sqrt() for m, g in gained.items()}
    found = speed_ratios(gained, over)
    torch.testing.assert_close(torch.stack(list(found.values())).sum(), torch.ones(()))
    backwards = speed_ratios(dict(reversed(gained.items())), over)
    assert all(torch.isclose(backwards[m], r) for m, r in found.items())


def test_a_running_mean_begins_with_its_first_value() -> None:
    new = torch.tensor([0.7, 0.2])
    first = running_mean(torch.zeros(2), new, 0.9)
    assert torch.equal(first, new)
    torch.testing.assert_close(running_mean(first, 2 * new, 0.9), 1.1 * new)
