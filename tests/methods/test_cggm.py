"""CGGM: the worked examples, the one-update lag of the direction, what is scaled, clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from equivox import Balancer, Classification, Concat, Joint, Method, Multimodal, Sum
from equivox.functional.alignment import alignment_loss
from equivox.functional.discrepancy import share_of_others
from equivox.methods.optimization.cggm import CGGM
from equivox.modules.classifiers import last_layers
from equivox.modules.gated_features import GatedFeatures
from equivox.step import Update


def named(*values: float) -> dict[str, Tensor]:
    return {f"m{i}": torch.tensor(value, dtype=torch.float64) for i, value in enumerate(values)}


def bound(method: Method, fusion: Any = Concat, count: int = 2) -> Balancer:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3, 4) for i in range(count)}
    model = Multimodal(net, fusion(dict.fromkeys(net, 4), 3))
    balancer = Balancer(model, method, task=Classification())
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.05))
    return balancer


def batch(seed: int = 3, count: int = 2) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = {f"m{i}": torch.randn(12, 3, generator=generator) for i in range(count)}
    return inputs, torch.arange(12) % 3


def update(balancer: Balancer, seed: int = 3) -> dict[str, Tensor]:
    """One update; the gradients that the optimizer used."""
    assert balancer.optimizer is not None
    balancer.optimizer.zero_grad()
    balancer(*batch(seed, len(balancer.model.modalities))).backward()
    balancer.optimizer.step()
    return {k: p.grad.clone() for k, p in balancer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ((0.1, 0.3), (0.75, 0.25)),
        ((0.1, 0.3, -0.05), (0.714286, 0.142857, 1.142857)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.125, -0.125), (-12499999.0, 12500001.0)),
        ((0.2,), (1.0,)),
    ],
)
def test_balance_of_the_worked_examples(
    gains: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    found = [b.item() for b in share_of_others(named(*gains)).values()]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_direction_of_the_worked_examples() -> None:
    three = alignment_loss(share_of_others(named(0.1, 0.3, -0.05)), named(0.5, -0.2, 0.1))
    assert three.item() == pytest.approx(0.519048, abs=1e-6)
    huge = alignment_loss(share_of_others(named(0.125, -0.125)), named(0.6, 0.7))
    assert huge.item() == pytest.approx(11874999.35, rel=1e-8)


@given(
    gains=st.lists(st.floats(-1, 1), min_size=2, max_size=5),
    angles=st.lists(st.floats(-1, 1), min_size=5, max_size=5),
)
def test_balance_sums_to_one_less_and_the_direction_is_bounded(
    gains: list[float], angles: list[float]
) -> None:
    balance = share_of_others(named(*gains))
    size = sum(b.abs() for b in balance.values())
    if abs(sum(gains) + 1e-8) > 1e-6:
        assert abs(sum(balance.values()) - len(gains) + 1) < 1e-6 + 1e-8 * size + 0.011
    loss = alignment_loss(balance, named(*angles[: len(gains)]))
    assert -1e-9 <= loss <= 2 * size / len(gains) * (1 + 1e-12) + 1e-9
    aligned = alignment_loss(balance, named(*[1.0] * len(gains)))
    if all(b >= 0 for b in balance.values()):
        assert aligned == pytest.approx(0.0, abs=1e-9)


def test_encoders_are_scaled_and_nothing_else_without_direction() -> None:
    balancer = bound(CGGM(direction="none", clip=None))
    method: Any = balancer.method
    found, expected = update(balancer), update(bound(Joint()))
    for name, g in expected.items():
        if name.startswith("fusion"):
            assert torch.equal(found[name], g)
        else:
            k = 1.3 * method.balance[name.split(".")[1]].item()
            torch.testing.assert_close(found[name], k * g)


def test_classifiers_send_nothing_to_the_encoders() -> None:
    balancer = bound(CGGM(direction="gradients"))
    features = balancer.model.encode(batch()[0])
    method: Any = balancer.method
    for m, z in features.items():
        logits = method.classifiers[m](z.detach())
        nn.functional.cross_entropy(logits, batch()[1]).backward()
    assert all(p.grad is None for p in balancer.model.parameters())
    assert method.classifiers["m0"][-1].weight.shape == balancer.model.fusion.linear.weight.shape


def test_the_first_gain_is_the_accuracy_itself() -> None:
    balancer = bound(CGGM())
    method: Any = balancer.method
    inputs, target = batch()
    features = balancer.model.encode(inputs)
    said = {m: method.classifiers[m](z) for m, z in features.items()}
    gains = {m: (z.argmax(1) == target).double().mean() for m, z in said.items()}
    update(balancer)
    expected = share_of_others(gains)
    for m, b in expected.items():
        torch.testing.assert_close(method.balance[m].data, b, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(method.previous[m].data, gains[m], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fusion", [Concat, Sum])
def test_the_direction_enters_the_next_update(fusion: Any) -> None:
    """Its gradient is that at the weights before the update it was found in."""
    ours = bound(CGGM(clip=None, rho=1.0), fusion, 3)
    plain = bound(CGGM(clip=None, rho=1.0, direction="none"), fusion, 3)
    method: Any = ours.method
    layers = last_layers(ours.model.fusion, 3)
    weights = [layer.weight.detach().clone().requires_grad_() for layer in layers]
    heads = {m: c[-1].weight.detach().clone() for m, c in method.classifiers.items()}
    first, same = update(ours), update(plain)
    assert all(torch.equal(first[name], g) for name, g in same.items())
    cosines = {
        m: nn.functional.cosine_similarity(w.flatten(), torch.cat(weights, 1).flatten(), dim=0)
        for m, w in heads.items()
    }
    loss = 0.2 * alignment_loss({m: method.balance[m].data for m in heads}, cosines)
    pulls = torch.autograd.grad(loss, weights)
    second, without = update(ours, 4), update(plain, 4)
    names = {id(p): k for k, p in ours.model.named_parameters()}
    pulled = {names[id(layer.weight)] for layer in layers}
    for layer, pull in zip(layers, pulls, strict=True):
        name = names[id(layer.weight)]
        torch.testing.assert_close(second[name], without[name] + pull)
        assert pull.abs().max() > 0
    for name, g in without.items():
        if name not in pulled:
            torch.testing.assert_close(second[name], g)


def test_the_papers_direction_is_a_double_backward() -> None:
    ours = bound(CGGM(clip=None, rho=1.0, direction="gradients"))
    plain = bound(CGGM(clip=None, rho=1.0, direction="none"))
    method: Any = ours.method
    inputs, target = batch()
    linear: Any = ours.model.fusion.linear
    features = ours.model.encode(inputs)

    def total() -> Tensor:
        joint = nn.functional.cross_entropy(ours.model.fused(features).logits, target)
        (g,) = torch.autograd.grad(joint, [linear.weight], create_graph=True)
        cosines = {}
        for m, z in features.items():
            classifier = method.classifiers[m]
            loss = nn.functional.cross_entropy(classifier(z.detach()), target)
            (h,) = torch.autograd.grad(loss, [classifier[-1].weight])
            cosines[m] = nn.functional.cosine_similarity(g.flatten(), h.flatten(), dim=0)
        update(plain)
        other: Any = plain.method
        return 0.2 * alignment_loss({m: other.balance[m].data for m in cosines}, cosines)

    turns = torch.autograd.grad(total(), [linear.weight, linear.bias])
    expected = update(bound(CGGM(clip=None, rho=1.0, direction="none")))
    found = update(ours)
    for name, turn in zip(("fusion.linear.weight", "fusion.linear.bias"), turns, strict=True):
        torch.testing.assert_close(found[name], expected[name] + turn.float())
    for m in inputs:
        torch.testing.assert_close(found[f"encoders.{m}.weight"], expected[f"encoders.{m}.weight"])


def test_the_model_alone_is_clipped_after_modulation() -> None:
    balancer = bound(CGGM(clip=0.01))
    found = update(balancer)
    norm = torch.cat([g.flatten() for g in found.values()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)
    method: Any = balancer.method
    theirs = [p.grad for p in method.classifiers.parameters()]
    assert torch.cat([g.flatten() for g in theirs if g is not None]).norm() > 0.05


def test_bounds_tame_an_exact_cancellation() -> None:
    method: Any = bound(CGGM(b_clip=2.0)).method
    method._balance({"m0": torch.tensor(0.5), "m1": torch.tensor(0.5)})
    balance = method._balance({"m0": torch.tensor(0.625), "m1": torch.tensor(0.375)})
    assert [b.item() for b in balance.values()] == [-2.0, 2.0]


def test_an_encoder_that_does_not_learn_is_left_alone() -> None:
    balancer = bound(CGGM())
    balancer.model.encoders["m1"].requires_grad_(False)
    found = update(balancer)
    assert "encoders.m0.weight" in found and "encoders.m1.weight" not in found


def test_the_classifiers_have_a_rate_of_their_own() -> None:
    balancer = bound(CGGM(lr_scale=0.5))
    assert balancer.optimizer is not None
    method: Any = balancer.method
    ids = {id(p) for p in method.classifiers.parameters()}
    rates = {
        id(p): group["lr"] for group in balancer.optimizer.param_groups for p in group["params"]
    }
    assert all(rate == pytest.approx(0.025 if i in ids else 0.05) for i, rate in rates.items())


def test_wrong_models_and_arguments_are_refused() -> None:
    class Quadratic(nn.Module):
        def __init__(self, widths: dict[str, int], outputs: int) -> None:
            super().__init__()
            self.widths, self.outputs = widths, outputs

        def forward(self, features: dict[str, Tensor]) -> Tensor:
            return torch.stack(list(features.values())).sum(0)[:, :3] ** 2

    with pytest.raises(ValueError, match="last linear layer"):
        bound(CGGM(), Quadratic)
    bound(CGGM(direction="none"), Quadratic)
    for bad in ({"rho": 0.0}, {"direction": "cosine"}, {"clip": 0.0}, {"ema": 1.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
            CGGM(**bad)  # type: ignore[arg-type]


def test_changes_that_cancel_are_read_exactly() -> None:
    """A mean in float32 would be further off than the 1e-8 that is added to the sum."""
    balancer = bound(CGGM(direction="none", clip=None))
    method: Any = balancer.method
    rights = {"m0": torch.arange(100) < 37, "m1": torch.arange(100) < 61}
    later = {"m0": torch.arange(100) < 46, "m1": torch.arange(100) < 52}
    for correct in (rights, later):
        found = Update(balancer.model, balancer.owned(), 0, 0, torch.Generator())
        found.add({(0, "correct"): {m: x.float() for m, x in correct.items()}})
        method.gradients(found)
    assert float(method.balance["m0"]) == pytest.approx(-0.09 / 1e-8, rel=1e-6)
    assert float(method.balance["m1"]) == pytest.approx(0.09 / 1e-8, rel=1e-6)


def test_a_gate_before_the_fusion_does_not_hide_its_layers() -> None:
    widths = {"a": 4, "b": 5}
    for fusion in (Sum(widths, 3), Concat(widths, 3)):
        gated = GatedFeatures(fusion, ("a", "b"))
        assert last_layers(gated, 3) == last_layers(fusion, 3)
