"""MLB: the worked examples, bounds, what is scaled and what is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from equivox import (
    Balancer,
    Classification,
    Concat,
    Gated,
    Joint,
    Method,
    MultiLabel,
    Multimodal,
    Regression,
    Sum,
)
from equivox.methods.optimization.multi_loss import MultiLoss, lag_ratios, mlb_coefficient

AUDIO = torch.tensor([[2.0, 0, 0], [0, 1, 0]])
VIDEO = torch.tensor([[0.5, 0, 0], [0, 0, 0.5]])
Found = dict[str, Tensor | None]


def scores(*values: float) -> dict[str, Tensor]:
    return {f"m{i}": torch.tensor(value) for i, value in enumerate(values)}


def bound(method: Method, fusion: Any = Concat, task: Any = None, count: int = 2) -> Balancer:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3 + i, 4 + i) for i in range(count)}
    model = Multimodal(net, fusion({m: 4 + i for i, m in enumerate(net)}, 3))
    balancer = Balancer(model, method, task=task or Classification())
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    return balancer


def gradients(balancer: Balancer, target: Tensor | None = None, parts: int = 1) -> Found:
    generator = torch.Generator().manual_seed(3)
    names = balancer.model.modalities
    inputs = {m: torch.randn(8, 3 + i, generator=generator) for i, m in enumerate(names)}
    target = torch.arange(8) % 3 if target is None else target
    for rows in torch.arange(8).chunk(parts):
        (balancer({m: x[rows] for m, x in inputs.items()}, target[rows]) / parts).backward()
    assert balancer.optimizer is not None
    balancer.optimizer.step()
    return {k: p.grad for k, p in balancer.model.named_parameters()}


def factors(found: Found, plain: Found) -> dict[str, float]:
    """By how much every gradient was multiplied; it must be one number a tensor."""
    result = {}
    for name, g in plain.items():
        ours = found[name]
        assert g is not None
        assert ours is not None
        k = (ours * g).sum() / (g * g).sum()
        torch.testing.assert_close(ours, k * g)
        result[name] = k.item()
    return result


def test_the_worked_example() -> None:
    target = torch.tensor([0, 1])
    task = Classification()
    s = {"a": task.score(AUDIO, target).mean(), "v": task.score(VIDEO, target).mean()}
    assert [x.item() for x in s.values()] == pytest.approx([0.681551, 0.362966], abs=1e-6)
    r = lag_ratios(s)
    assert [x.item() for x in r.values()] == pytest.approx([0.532558, 1.877730], abs=5e-6)
    assert (r["a"] * r["v"]).item() == pytest.approx(1.0)
    expected = {(0.8, 2.0): (0.642555, 1.605752), (1.0, 2.0): (0.563870, 1.705280)}
    expected |= {(0.8, 4.0): (0.642555, 2.817256)}
    for (alpha, beta), wanted in expected.items():
        k = [mlb_coefficient(x, alpha, beta).item() for x in r.values()]
        assert k == pytest.approx(wanted, abs=5e-6)


def test_three_modalities() -> None:
    r = lag_ratios(scores(0.6, 0.3, 0.3))
    assert [x.item() for x in r.values()] == pytest.approx([0.5, 1.5, 1.5])
    k = [mlb_coefficient(x, 0.8).item() for x in r.values()]
    assert k == pytest.approx([0.620051, 1.379949, 1.379949], abs=1e-6)
    inverted = lag_ratios(scores(0.6, 0.3, 0.3), errors=True)
    assert [x.item() for x in inverted.values()] == pytest.approx([2.0, 2 / 3, 2 / 3])


def test_equal_scores_and_no_scores_leave_everything_alone() -> None:
    for values in ((0.4, 0.4, 0.4), (0.0, 0.0), (0.7,)):
        for errors in (False, True):
            r = lag_ratios(scores(*values), errors)
            assert all(mlb_coefficient(x, 0.8) == 1 for x in r.values())


@given(
    s=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5),
    alpha=st.floats(0, 3),
    beta=st.floats(1, 5),
)
def test_coefficients_are_bounded(s: list[float], alpha: float, beta: float) -> None:
    for r in lag_ratios(scores(*s)).values():
        assert 0 <= mlb_coefficient(r, alpha) <= 2
        assert 0 <= mlb_coefficient(r, alpha, beta) <= max(1.0, beta) + 1e-6


@pytest.mark.parametrize("fusion", [Concat, Sum, Gated])
def test_what_is_scaled(fusion: Any) -> None:
    plain = gradients(bound(MultiLoss(alpha=0.0), fusion))
    found = gradients(bound(MultiLoss(alpha=2.0), fusion))
    if fusion is Concat:  # one tensor, whose columns belong to the modalities
        for of in (plain, found):
            parts = of.pop("fusion.linear.weight").split([4, 5], dim=1)  # type: ignore[union-attr]
            of.update({f"columns.m{i}.weight": part for i, part in enumerate(parts)})
    k = factors(found, plain)
    ours = {m: k[f"encoders.{m}.weight"] for m in ("m0", "m1")}
    assert min(ours.values()) < 0.99
    assert max(ours.values()) > 1.01
    separable = {Concat: "columns.{}.weight", Sum: "fusion.linears.{}.weight"}.get(fusion, "")
    for m, value in ours.items():
        same = (f"encoders.{m}.bias", f"heads.{m}.weight", f"heads.{m}.bias", separable.format(m))
        for name in filter(None, same):
            assert k.pop(name) == pytest.approx(value, rel=1e-4)
        k.pop(f"encoders.{m}.weight")
    assert list(k.values()) == pytest.approx([1.0] * len(k), abs=1e-6)


def test_heads_may_be_left_alone() -> None:
    plain = gradients(bound(MultiLoss(alpha=0.0)))
    found = gradients(bound(MultiLoss(alpha=2.0, scale_heads=False)))
    for name, g in plain.items():
        if name.startswith("heads"):
            assert torch.equal(found[name], g)  # type: ignore[arg-type]


def test_neutral_is_joint_training_and_heads_get_nothing() -> None:
    joint = gradients(bound(Joint()))
    found = gradients(bound(MultiLoss(alpha=0.0, lambda_unimodal=0.0)))
    for name, g in found.items():
        if name.startswith("heads"):
            assert g is None
        else:
            assert torch.equal(g, joint[name])  # type: ignore[arg-type]


def test_scores_count_over_the_whole_update() -> None:
    whole = gradients(bound(MultiLoss()))
    for name, g in gradients(bound(MultiLoss()), parts=2).items():
        torch.testing.assert_close(g, whole[name])


def test_outside_its_epochs_nothing_is_scaled() -> None:
    plain, late = gradients(bound(MultiLoss(alpha=0.0))), gradients(bound(MultiLoss(starts=1)))
    assert all(torch.equal(late[k], g) for k, g in plain.items())  # type: ignore[arg-type]


@pytest.mark.parametrize("task", [Regression(outputs=3), MultiLabel()])
def test_other_tasks_speed_up_the_worse_modality(task: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(8, 3, generator=generator)  # the first modality's input itself
    target = truth if isinstance(task, Regression) else (truth > 0).float()

    def taught(method: Method) -> Found:
        balancer = bound(method, task=task)
        model: Any = balancer.model
        with torch.no_grad():
            model.encoders["m0"].weight.copy_(torch.eye(4, 3))
            model.encoders["m0"].bias.zero_()
            model.heads["m0"].weight.copy_(torch.eye(3, 4))
            model.heads["m0"].bias.zero_()
        return gradients(balancer, target)

    plain, found = taught(MultiLoss(alpha=0.0)), taught(MultiLoss(alpha=1.0))
    wanted = {k: g for k, g in plain.items() if k.startswith("encoders")}
    k = factors({name: found[name] for name in wanted}, wanted)
    assert k["encoders.m0.weight"] < 1 < k["encoders.m1.weight"]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`alpha` should be zero or more"):
        MultiLoss(alpha=-1.0)
    with pytest.raises(ValueError, match="`beta` should be 1 or more"):
        MultiLoss(beta=0.5)
