from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.features import Features
from equivox.methods.feedforward.drop_pathway import DropPathway
from equivox.modules.lateral import Lateral

INPUTS = {"a": torch.randn(6, 3, generator=torch.Generator().manual_seed(1))}
INPUTS |= {m: INPUTS["a"].roll(k, 0) + k for k, m in enumerate("bc", start=1)}
TARGET = torch.arange(6) % 2


def balanced(
    method: DropPathway, names: str = "ab", fusion: nn.Module | None = None, seed: int = 0
) -> tuple[ev.Balancer, torch.optim.Optimizer]:
    torch.manual_seed(0)
    nets = {m: nn.Linear(3, 4) for m in names}
    model = ev.Multimodal(nets, fusion or ev.Concat(dict.fromkeys(names, 4), 2))
    balancer = ev.Balancer(model, method, task=ev.Classification(), seed=seed)
    return balancer, balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))


def inputs(names: str) -> dict[str, Tensor]:
    return {m: INPUTS[m] for m in names}


def loss_of(balancer: ev.Balancer, x: dict[str, Tensor], y: Tensor = TARGET) -> Tensor:
    next(balancer.epoch([(x, y)]))
    found: Tensor = balancer(x, y)
    return found


def test_by_hand() -> None:
    fusion = ev.Concat({"a": 2, "v": 1}, 1)
    nn.init.ones_(fusion.linear.weight)
    nn.init.constant_(fusion.linear.bias, 0.5)
    model = ev.Multimodal({"a": nn.Identity(), "v": nn.Identity()}, fusion)
    method = DropPathway(p=1.0, modalities=["a"])
    balancer = ev.Balancer(model, method, task=ev.Regression(1))
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    x = {"a": torch.tensor([[1.0, 2.0]]), "v": torch.tensor([[3.0]])}
    assert balancer.predict(x).item() == 6.5
    assert loss_of(balancer, x, torch.tensor([[0.0]])).item() == 3.5**2


def test_a_certain_drop_gives_zero_gradients_and_the_logits_without_it() -> None:
    balancer, _ = balanced(DropPathway(p=1.0, modalities=["a"]))
    loss = loss_of(balancer, inputs("ab"))
    loss.backward()
    assert all((p.grad == 0).all() for p in balancer.model.encoder_parameters("a"))
    assert all((p.grad != 0).any() for p in balancer.model.encoder_parameters("b"))
    z = balancer.model.encode(inputs("ab"))
    without = balancer.model.fusion({**z, "a": torch.zeros_like(z["a"])})
    torch.testing.assert_close(loss, nn.functional.cross_entropy(without, TARGET), rtol=0, atol=0)


def test_no_drop_is_joint_training_and_draws_nothing_outside() -> None:
    (dropped, _), (joint, _) = balanced(DropPathway(p=0.0)), balanced(ev.Joint())  # type: ignore[arg-type]
    before = torch.get_rng_state()
    for balancer in (dropped, joint):
        for x, y in balancer.epoch([(inputs("ab"), TARGET)]):
            balancer(x, y).backward()
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(dropped.model.parameters(), joint.model.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_evaluation_keeps_everything() -> None:
    (some, _), (other, _) = (balanced(DropPathway(p=p, modalities=["a"])) for p in (0.0, 1.0))
    assert torch.equal(some.predict(inputs("ab")), other.predict(inputs("ab")))
    assert torch.equal(some.eval()(inputs("ab"), TARGET), other.eval()(inputs("ab"), TARGET))


def test_one_decision_for_all_samples_and_micro_batches_of_an_update() -> None:
    balancer, optimizer = balanced(DropPathway(p=0.5, modalities=["a"]))
    seen = set()
    for _ in range(20):
        zero = []
        for _ in range(2):
            kept: list[Tensor] = []
            handle = balancer.model.fusion.register_forward_pre_hook(
                lambda _, x, kept=kept: kept.append(x[0]["a"].detach())
            )
            loss_of(balancer, inputs("ab")).backward()
            handle.remove()
            zero.append((kept[0] == 0).all(1))
        optimizer.step()
        optimizer.zero_grad()
        decisions = torch.cat(zero)
        assert decisions.all() or not decisions.any()
        seen.add(bool(decisions[0]))
    assert seen == {True, False}


class Connected(nn.Module):
    """Two junctions that add `a` to `b`, and a head that sees both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Lateral("a"), Lateral("a")
        self.linear = nn.Linear(8, 2)

    def forward(self, features: Features) -> Tensor:
        a, b = features["a"], features["b"]
        b = (b + self.first(a)).tanh() + self.second(a)
        return self.linear(torch.cat([a, b], -1))


def test_lateral_scope_cuts_all_junctions_and_leaves_the_head() -> None:
    fusion = Connected()
    balancer, _ = balanced(DropPathway(p=1.0, modalities=["a"], scope="lateral"), fusion=fusion)
    loss = loss_of(balancer, inputs("ab"))
    z = balancer.model.encode(inputs("ab"))
    expected = fusion.linear(torch.cat([z["a"], z["b"].tanh()], -1))
    torch.testing.assert_close(loss, nn.functional.cross_entropy(expected, TARGET))
    loss.backward()
    assert all((p.grad != 0).any() for p in balancer.model.encoder_parameters("a"))
    whole = copy.deepcopy(fusion).eval()(z)
    torch.testing.assert_close(balancer.predict(inputs("ab")), whole)


def test_auto_drops_nobody_first_and_then_whoever_leads() -> None:
    method = DropPathway(p=1.0)
    balancer, optimizer = balanced(method, "abc")
    for modality in "ac":
        nn.init.zeros_(balancer.model.encoders[modality].weight)  # type: ignore[arg-type]
    batches = [({**inputs("abc"), "b": 3.0 * TARGET.float()[:, None].expand(-1, 3)}, TARGET)] * 30
    for epoch in range(2):
        for x, y in balancer.epoch(batches):
            balancer(x, y).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert method.droppable.tolist() == [False, epoch == 1, False]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"`p` should lie"):
        DropPathway(p=1.5)
    with pytest.raises(ValueError, match=r"Write `\['audio'\]`"):
        DropPathway(modalities="audio")
    with pytest.raises(ValueError, match="should name some of a, b"):
        balanced(DropPathway(modalities=["audio"]))
    with pytest.raises(ValueError, match="Found none"):
        balanced(DropPathway(scope="lateral"))
    with pytest.raises(ValueError, match="`scope`"):
        DropPathway(scope="all")
