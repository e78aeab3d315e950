"""The late fusion is Bayes' rule where modalities are independent given the target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equivox.diagnosis.late_fusion import late_fusion
from equivox.diagnosis.metric import value
from equivox.task import Classification, Dense, MultiLabel, Regression


def posterior(like: Tensor, prior: Tensor) -> Tensor:
    joint = like * prior
    return joint / joint.sum(1, keepdim=True)


def test_independent_modalities_and_an_unequal_prior() -> None:
    g = torch.Generator().manual_seed(0)
    prior = torch.tensor([0.7, 0.2, 0.1])
    target = prior.multinomial(20_000, replacement=True, generator=g)
    says = {m: torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]]) for m in "ab"}
    seen = {m: p[target].multinomial(1, generator=g)[:, 0] for m, p in says.items()}
    like = {m: p.T[seen[m]] for m, p in says.items()}  # (samples, classes) p(seen | class)
    alone = {m: posterior(x, prior).log() for m, x in like.items()}
    found = late_fusion(Classification(3), alone, target)(alone).softmax(1)
    wanted = posterior(like["a"] * like["b"], prior)
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0)


def test_who_is_too_sure_is_trusted_less() -> None:
    g = torch.Generator().manual_seed(1)
    target = torch.arange(2000) % 2
    logits = torch.randn(2000, 2, generator=g) + torch.nn.functional.one_hot(target, 2) * 2
    alone = {"calm": logits, "loud": logits * 10}
    weights = late_fusion(Classification(2), alone, target).weights
    assert float(weights["calm"] / weights["loud"]) == pytest.approx(10, rel=0.01)


def test_labels_are_independent_of_each_other() -> None:
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]] * 50)
    alone = {m: (target - 0.5) * torch.tensor([2.0, 0.1]) for m in "ab"}
    fused = late_fusion(MultiLabel(2), alone, target)(alone)
    assert ((fused > 0) == (target > 0.5)).all()


def test_numbers_are_weighted_by_precision() -> None:
    g = torch.Generator().manual_seed(2)
    y = torch.randn(50_000, 1, generator=g)
    seen = {m: y + s * torch.randn(50_000, 1, generator=g) for m, s in (("a", 0.5), ("b", 1.0))}
    alone = {"a": seen["a"] / 1.25, "b": seen["b"] / 2, "worse": y.roll(1) * 3}
    late = late_fusion(Regression(), alone, y)
    # Precisions 4 and 1 of what is seen, 1 of the prior: R2 = 1 - 1 / (4 + 1 + 1).
    assert value(Regression(), late(alone), y) == pytest.approx(5 / 6, abs=0.01)
    assert late({m: z[:3] for m, z in alone.items()}).shape == (3, 1)
    flat = late_fusion(Regression(), alone, y[:, 0])
    torch.testing.assert_close(flat(alone), late(alone))


def test_positions_that_do_not_count_are_left_out() -> None:
    target = torch.tensor([[[0, 1], [255, 0]]] * 10)
    z = torch.nn.functional.one_hot(target.clamp(max=1), 2).movedim(-1, 1).float()
    late = late_fusion(Dense(2), {"a": z, "b": z}, target)
    assert late({"a": z, "b": z}).shape == z.shape
    share = torch.tensor([21 / 32, 11 / 32], dtype=torch.float64)
    torch.testing.assert_close(late.offset, -share.log())
