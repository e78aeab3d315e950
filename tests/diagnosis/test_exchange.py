from __future__ import annotations

import torch
from torch import Tensor

from equivox.diagnosis.exchange import Kept, differ, kind, lenders, lending, ring


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def sequences(length: int, value: float, samples: int = 2) -> dict[str, tuple[Tensor, Tensor]]:
    """Of this value where there is something; the last step of each is padding."""
    x = torch.full((samples, length, 1), value)
    mask = torch.zeros(samples, length, dtype=torch.bool)
    x[:, -1], mask[:, -1] = 99.0, True
    return {"a": (x, mask)}


def test_a_lender_is_another_row() -> None:
    for count in (2, 3, 10):
        lender = lenders(ring(count, generator()))
        assert torch.equal(lender.sort().values, torch.arange(count))
        assert (lender != torch.arange(count)).all()


def test_targets_differ_where_any_part_does() -> None:
    target = torch.tensor([[1, 0], [1, 1], [1, 0]])
    assert differ(target, torch.tensor([1, 2, 0])).tolist() == [True, True, False]
    assert differ({"x": target[:, 0]}, torch.tensor([1, 2, 0])).tolist() == [False] * 3


def test_rows_of_other_shapes_do_not_lend_to_each_other() -> None:
    kept = Kept()
    for width in (2, 3, 2):
        kept.add({"a": torch.zeros(4, width)})
    lender = lenders(kept.ring(generator()))
    assert set(lender[4:8].tolist()) == {4, 5, 6, 7}
    assert {*lender[:4].tolist(), *lender[8:].tolist()} == {0, 1, 2, 3, 8, 9, 10, 11}


def test_lengths_of_sequences_differ_where_there_is_a_mask() -> None:
    assert kind(sequences(3, 0.0)) == kind(sequences(5, 0.0))
    assert kind({"a": torch.zeros(2, 3, 1)}) != kind({"a": torch.zeros(2, 5, 1)})


def test_lent_sequences_are_filled_up() -> None:
    kept = Kept()
    kept.add(sequences(3, 1.0))
    kept.add(sequences(5, 2.0))
    own, lent = kept.lent(sequences(3, 1.0), torch.tensor([2, 1]))
    assert own["a"][1].tolist() == [[False, False, True, True, True]] * 2
    assert lent["a"][1].tolist() == [[False] * 4 + [True], [False, False, True, True, True]]
    assert lent["a"][0][..., 0].tolist() == [[2, 2, 2, 2, 99], [1, 1, 99, 0, 0]]


def test_padding_is_in_no_mean() -> None:
    kept = Kept()
    kept.add(sequences(3, 1.0))
    kept.add(sequences(5, 4.0, samples=4))
    (_, first, one), (_, second, other) = kept.parts()
    assert (first.tolist(), second.tolist()) == ([0, 1], [2, 3, 4, 5])
    assert one["a"][..., 0].tolist() == [[3, 3, 4]]
    assert other["a"][..., 0].tolist() == [[3, 3, 4, 4, 0]]


def test_another_pass_meets_other_samples() -> None:
    kept, x = Kept(), torch.arange(12.0)[:, None]
    for part in x.split(3):
        kept.add({"a": part})
    lend = lending(kept, generator())
    pairs = [lend({"a": part}) for part in x.split(3)]
    own, lent = (torch.cat([pair[i]["a"] for pair in pairs]) for i in range(2))
    assert torch.equal(own, x) and (own != lent).all()
    assert torch.equal(lent.sort(0).values, x)
