"""Details of the formulas: who is a constant, what is a share of what, where an edge lies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from equivox import Classification, Dense, MultiLabel
from equivox.functional import contrastive
from equivox.functional.boosting import boosting_losses
from equivox.functional.confidence import rises
from equivox.functional.contrastive import info_nce
from equivox.functional.dependence import dependent
from equivox.functional.distillation import distillation_weight, opinion_of
from equivox.functional.gradients import adam_step_
from equivox.functional.label_entropy import constant_loss, label_facts
from equivox.functional.labels import binned, single_classes
from equivox.functional.masking import random_mask
from equivox.functional.norms import norm_distance
from equivox.functional.resampling import copies_of
from equivox.functional.shapley import imbalance, sampled_shapley_values
from equivox.functional.units import units_of


def test_a_negative_contribution_counts_by_its_size() -> None:
    found = imbalance({"a": torch.tensor(0.5), "v": torch.tensor(-0.1)})
    torch.testing.assert_close(found.relative, torch.tensor(1.0))  # 0.6 / (0.5 + 0.1)


def test_the_standard_error_is_that_of_a_sample_of_orders() -> None:
    v = {"": 0.0, "a": 1.0, "v": 0.0, "av": 3.0}  # a gains 1 as the first and 3 as the second
    found = sampled_shapley_values(
        lambda s: torch.tensor(v["".join(sorted(s))]), ["a", "v"], [("a", "v"), ("v", "a")]
    )
    torch.testing.assert_close(found.values["a"], torch.tensor(2.0))
    torch.testing.assert_close(found.standard_error["a"], torch.tensor(1.0))  # sqrt(2) / sqrt(2)


def test_labels_that_are_absent_have_the_agreement_of_their_absence() -> None:
    f, phi = torch.tensor([[0.3, -0.2]]), torch.tensor([[1.5, -2.0]])
    found = boosting_losses(f, phi, torch.tensor([[1, 0]]), MultiLabel(2), w1=5.0, w2=1.0)
    q = torch.stack([phi[0, 0].sigmoid(), 1 - phi[0, 1].sigmoid()])
    losses = -torch.stack([f[0, 0].sigmoid().log(), (1 - f[0, 1].sigmoid()).log()])
    torch.testing.assert_close(found, ((5 - q) * losses).mean()[None])


def test_the_other_learners_are_constants() -> None:
    f, phi = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    for task, target in (
        (Classification(), torch.tensor([0, 1, 2, 0])),
        (MultiLabel(3), torch.ones(4, 3)),
    ):
        loss = boosting_losses(f, phi, target, task).sum()
        (gradient,) = torch.autograd.grad(loss, [phi], allow_unused=True)
        assert gradient is None, task


def test_stem_and_shortcuts_have_no_units() -> None:
    class Block(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3)
            self.add_module(name, nn.Conv2d(4, 4, 1))

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Block("downsample"), Block("shortcut"))
    assert [u.parameter is b.conv.weight for u, b in zip(units_of(net), net[1:], strict=True)] == [
        True,
        True,
    ]


def test_norms_get_no_gradient() -> None:
    norms = {m: torch.rand(3, requires_grad=True) for m in "av"}
    scales = {m: torch.ones((), requires_grad=True) for m in "av"}
    ratios = {m: torch.tensor(0.5) for m in "av"}
    loss = norm_distance(scales, norms, ratios).sum()
    found = torch.autograd.grad(loss, [*norms.values(), *scales.values()], allow_unused=True)
    assert [g is None for g in found] == [True, True, False, False]


def test_the_margin_is_of_what_counts_of_a_rise() -> None:
    found = rises(*map(torch.tensor, ([0.5], [0.9], [0.5])), margin=0.1)
    torch.testing.assert_close(found, torch.tensor([0.4 * 0.5 - 0.1]))


def test_an_edge_is_in_the_lower_bin() -> None:
    edges = torch.tensor([[1.0, 2.0]])
    assert binned(torch.tensor([1.0, 1.5, 2.0]), edges).flatten().tolist() == [0, 1, 1]


def test_a_label_that_training_lacks_is_still_a_label() -> None:
    train = torch.tensor([[1, 0, 0]])
    assert single_classes(MultiLabel(3), torch.tensor([[0, 0, 1]]), train).tolist() == [2]


def test_adam_is_torchs_where_gradients_are_as_small_as_eps() -> None:
    value, moments = torch.ones(()), torch.zeros(3)
    parameter = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    for size in (3e-8, 1e-8, 5.0):
        adam_step_(value, torch.tensor(size), moments, lr=0.1)
        parameter.grad = torch.tensor(size)
        optimizer.step()
        torch.testing.assert_close(value, parameter.detach())


def test_rounding_of_a_share_loses_no_whole_entry() -> None:
    mask = random_mask(torch.rand(100), torch.tensor(0.29, dtype=torch.float64))
    assert (~mask).sum() == 29  # 0.29 * 100 is 28.999999999999996


def test_thresholds_of_copies_leave_themselves_out() -> None:
    assert copies_of(torch.tensor([0.4, -0.1])).tolist() == [1, 2]


def test_nobody_depends_on_a_modality_that_has_just_its_share() -> None:
    assert dependent(torch.tensor([0.5, 0.5]), sigma=0.5).tolist() == [False, False]


def test_dense_labels_are_shares_of_the_valid_positions() -> None:
    task = Dense(2, ignore_index=255)
    target = torch.tensor([[0, 0], [1, 255], [255, 255]])
    facts = label_facts(task, torch.zeros(3, 2, 2), target)
    torch.testing.assert_close(facts, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    # A sample without positions says nothing: the entropy is that of (1/2, 1/2).
    torch.testing.assert_close(constant_loss(task, facts.mean(0)), torch.tensor(2.0).log())


def test_info_nce_asks_in_both_directions() -> None:
    first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    s = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    rows, columns = s.log_softmax(1).diagonal().mean(), s.log_softmax(0).diagonal().mean()
    assert not torch.isclose(rows, columns)
    found = info_nce(first, second, temperature=1.0)
    torch.testing.assert_close(found, -(rows + columns) / 2)
    torch.testing.assert_close(info_nce(second, first, temperature=1.0), found)


def test_averaged_gradients_of_ranks_are_those_of_one_large_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = torch.randn(6, 4), torch.randn(6, 4)
    for x in (first, second):
        x.requires_grad_()
    whole = torch.autograd.grad(contrastive.info_nce(first, second), [first, second])
    monkeypatch.setattr(contrastive, "world", lambda: 2)
    sums = [torch.zeros_like(g) for g in whole]
    for number in range(2):
        monkeypatch.setattr(contrastive, "rank", lambda number=number: number)
        mine = slice(3 * number, 3 * number + 3)
        everywhere = iter([first.detach(), second.detach()])
        monkeypatch.setattr(contrastive, "gathered", lambda _, found=everywhere: next(found))
        loss = contrastive.global_info_nce(first[mine], second[mine])
        for total, g in zip(sums, torch.autograd.grad(loss, [first, second]), strict=True):
            total += g / 2  # as a data-parallel wrapper averages
    torch.testing.assert_close(sums, list(whole))


def test_one_that_is_right_is_enough_to_teach() -> None:
    target = torch.tensor([0, 0])
    right, wrong = torch.tensor([[0.6, 0.4], [0.3, 0.7]]), torch.tensor([[0.2, 0.8], [0.1, 0.9]])
    said = [opinion_of(p.log(), target, Classification()) for p in (right, wrong)]
    torch.testing.assert_close(distillation_weight(*said), torch.tensor([0.4, 0.0]))
    torch.testing.assert_close(distillation_weight(*said[::-1]), torch.tensor([0.4, 0.0]))
