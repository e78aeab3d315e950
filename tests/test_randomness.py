"""Random states: kept exactly, and cheaply where nothing was drawn."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import numpy
import pytest
import torch

from equivox.randomness import from_json, random_state, set_random_state, to_json


def draws() -> list[float]:
    return [torch.rand(()).item(), random.random(), numpy.random.rand(), numpy.random.randn()]


@pytest.mark.parametrize("before", [lambda: 0, numpy.random.rand, numpy.random.randn])
@pytest.mark.parametrize("between", [lambda: 0, numpy.random.rand, numpy.random.randn])
def test_state_taken_over_is_the_state(
    before: Callable[[], object], between: Callable[[], object]
) -> None:
    numpy.random.seed(3)
    before()
    first = random_state()
    between()
    second = random_state(before=first)
    expected = draws()
    for state in (second, from_json(to_json(second))):
        set_random_state(state)
        assert draws() == expected


def test_numpy_is_not_asked_again_where_nothing_was_drawn() -> None:
    numpy.random.seed(3)
    first = random_state()
    assert random_state(before=first)["numpy"] is first["numpy"]
    numpy.random.rand()
    assert random_state(before=first)["numpy"] is not first["numpy"]


def test_another_bit_generator_of_numpy() -> None:
    kept = numpy.random.get_bit_generator()
    try:
        numpy.random.set_bit_generator(numpy.random.PCG64(1))
        state = random_state()
        expected = draws()
        set_random_state(from_json(json.loads(json.dumps(to_json(state)))))
        assert draws() == expected
    finally:
        numpy.random.set_bit_generator(kept)
