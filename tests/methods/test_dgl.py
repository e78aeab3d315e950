"""DGL: who learns from what, to the bit; both kinds of unimodal logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox import Balancer, Classification, Concat, Gated, Joint, Method, Multimodal
from equivox.methods.optimization.dgl import DGL

Inputs = dict[str, Tensor]


def bound(method: Method, count: int = 2, fusion: Any = Concat) -> Balancer:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Sequential(nn.Linear(3 + i, 4), nn.Tanh()) for i in range(count)}
    model = Multimodal(net, fusion(dict.fromkeys(net, 4), 3))
    balancer = Balancer(model, method, task=Classification())
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    return balancer


def batch(count: int = 2) -> tuple[Inputs, Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = {f"m{i}": torch.randn(8, 3 + i, generator=generator) for i in range(count)}
    return inputs, torch.arange(8) % 3


def gradients(balancer: Balancer, inputs: Inputs, target: Tensor) -> dict[str, Tensor | None]:
    balancer.zero_grad()
    balancer(inputs, target).backward()
    return {k: p.grad for k, p in balancer.model.named_parameters()}


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


@pytest.mark.parametrize("fusion", [Concat, Gated])
def test_an_encoder_sees_neither_the_fusion_nor_the_others(fusion: Any) -> None:
    inputs, target = batch(3)
    balancer = bound(DGL(), 3, fusion)
    before = gradients(balancer, inputs, target)
    with torch.no_grad():
        for p in balancer.model.fusion.parameters():
            p.mul_(-3.0)
    other = inputs | {"m1": inputs["m1"] + 1}
    after = gradients(balancer, other, target)
    for name in before:
        if "encoders.m0" in name or "encoders.m2" in name:
            assert same(before[name], after[name])
    assert not same(before["encoders.m1.0.weight"], after["encoders.m1.0.weight"])


@pytest.mark.parametrize("heads", ["own", "blanked"])
def test_the_fusion_learns_as_on_frozen_features(heads: str) -> None:
    inputs, target = batch()
    found = gradients(bound(DGL(alpha=4.0, heads=heads)), inputs, target)
    frozen = bound(Joint())
    frozen.model.encoders.requires_grad_(False)
    expected = gradients(frozen, inputs, target)
    for name in ("fusion.linear.weight", "fusion.linear.bias"):
        assert same(found[name], expected[name])


def test_blanked_heads_are_the_fusion_with_the_others_at_zero() -> None:
    inputs, target = batch()
    balancer = bound(DGL(alpha=2.0, heads="blanked"))
    assert balancer.model.heads is None
    found = gradients(balancer, inputs, target)
    model = balancer.model
    loss = 0.0
    for name in inputs:
        z = model.encode(inputs)
        loss = loss + 2.0 * nn.functional.cross_entropy(model.fuse(z, {name}), target)
    encoder = [p for m in inputs for p in model.encoder_parameters(m)]
    expected = torch.autograd.grad(loss, encoder)
    for p, g in zip(encoder, expected, strict=True):
        torch.testing.assert_close(p.grad, g)
    assert all(p.requires_grad for p in model.fusion.parameters())
    assert found["fusion.linear.weight"] is not None


def test_alpha_zero_gives_encoders_no_gradient_at_all() -> None:
    method = DGL(alpha=0.0)
    found = gradients(bound(method), *batch())
    assert method.leaves_unused
    assert all(g is None for k, g in found.items() if not k.startswith("fusion"))


def test_one_modality_learns_as_alone_up_to_alpha() -> None:
    inputs, target = batch(1)
    joint, dgl = bound(Joint(), 1), bound(DGL(alpha=4.0), 1)
    head: Any = dgl.model.heads
    head["m0"].load_state_dict(joint.model.fusion.linear.state_dict())  # type: ignore[union-attr, operator]
    expected, found = gradients(joint, inputs, target), gradients(dgl, inputs, target)
    for name, gradient in expected.items():
        if name.startswith("encoders"):
            torch.testing.assert_close(found[name], 4.0 * gradient)  # type: ignore[operator]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`alpha` should be zero or more"):
        DGL(alpha=-1.0)
    with pytest.raises(ValueError, match="`heads` should be"):
        DGL(heads="split")
