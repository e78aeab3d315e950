"""InfoReg: the worked examples, its window, the added term, and the official variant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox import Balancer, Classification, Concat, Joint, Method, Multimodal
from equivox.functional.discrepancy import lead_over_worse, regulation_strength
from equivox.methods.optimization.inforeg import InfoReg


def bound(method: Method, count: int = 2) -> tuple[Balancer, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3, 4) for i in range(count)}
    model = Multimodal(net, Concat(dict.fromkeys(net, 4), 3))
    balancer = Balancer(model, method, task=Classification())
    return balancer, balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))


def loader(count: int = 2, steps: int = 3) -> list[Any]:
    """The first modality says what the class is, the others say nothing."""
    generator = torch.Generator().manual_seed(3)
    target = torch.arange(6) % 3
    signal = {"m0": 3 * torch.eye(3)[target]}
    noise = {f"m{i}": torch.randn(steps, 6, 3, generator=generator) for i in range(1, count)}
    return [(signal | {m: x[i] for m, x in noise.items()}, target) for i in range(steps)]


def gradients(method: Method, epochs: int, count: int = 2) -> list[list[dict[str, Tensor]]]:
    """Every step's gradients, as the optimizer gets them."""
    balancer, optimizer = bound(method, count)
    found: list[list[dict[str, Tensor]]] = []
    for _ in range(epochs):
        found.append([])
        for batch in balancer.epoch(loader(count)):
            optimizer.zero_grad()
            balancer(*batch).backward()
            optimizer.step()
            named = balancer.model.named_parameters()
            found[-1].append({k: p.grad.clone() for k, p in named if p.grad is not None})
    return found


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_strengths_of_the_worked_example() -> None:
    wanted = {0.1: 1.093847, 0.5: 1.515743, 1.0: 1.984634, 3.0: 2.448680}
    for delta, alpha in wanted.items():
        found = regulation_strength(torch.tensor(delta), beta=0.9)
        assert found.item() == pytest.approx(alpha, abs=2e-6)
    official = {0.1: 1.049564, 0.5: 1.508060, 1.0: 2.034603, 3.0: 2.569629}
    for delta, alpha in official.items():
        found = 0.95 * regulation_strength(torch.tensor(delta), beta=1.0)
        assert found.item() == pytest.approx(alpha, abs=2e-6)
    assert regulation_strength(torch.tensor(0.0), beta=0.9) == 0


def test_the_lead_is_over_the_worse_ones() -> None:
    scores = {"a": torch.tensor(-1.0), "b": torch.tensor(-2.0), "c": torch.tensor(-4.0)}
    assert [x.item() for x in lead_over_worse(scores).values()] == pytest.approx([2.0, 2.0, 0.0])
    assert all(x == 0 for x in lead_over_worse(dict.fromkeys("abc", torch.tensor(-1.0))).values())
    assert lead_over_worse({"a": torch.tensor(-1.0)})["a"] == 0


@pytest.mark.parametrize(("threshold", "epochs"), [(0.04, 2), (1.0, 4)])
def test_before_and_outside_the_window_it_is_joint_training(threshold: float, epochs: int) -> None:
    found = gradients(InfoReg(threshold=threshold), epochs)
    joint = gradients(Joint(), epochs)
    assert all(
        equal(a, b) for x, y in zip(found, joint, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("count", [2, 3])
def test_the_leading_encoder_is_tied_to_its_old_weights(count: int) -> None:
    balancer, optimizer = bound(InfoReg(starts=1), count)
    method: Any = balancer.method
    for _ in range(2):
        for number, (inputs, target) in enumerate(balancer.epoch(loader(count))):
            optimizer.zero_grad()
            balancer(inputs, target).backward()
            plain = {k: p.grad.clone() for k, p in _learning(balancer)}
            before = {k: p.detach().clone() for k, p in _learning(balancer)}
            split = balancer.model(inputs).split
            scores = {m: -nn.functional.cross_entropy(z, target).detach() for m, z in split.items()}
            if number == 0:
                start = before
            optimizer.step()
            alpha = regulation_strength(lead_over_worse(scores)["m0"], beta=0.9)
            assert alpha > 0
            active = balancer.progress.epoch == 1
            for name, p in _learning(balancer):
                expected = plain[name]
                if active and name.startswith("encoders.m0"):
                    expected = expected + alpha * (before[name] - start[name])
                    assert number == 0 or not torch.equal(p.grad, plain[name])
                if name.startswith(("encoders.m0", "fusion")):
                    torch.testing.assert_close(p.grad, expected)
    assert method.traces.growth["m0"] == 1  # the second epoch compares the first trace with none


def _learning(balancer: Balancer) -> list[tuple[str, Any]]:
    return list(balancer.model.named_parameters())


def test_the_first_step_of_an_epoch_is_untouched() -> None:
    """There every weight equals its snapshot, whatever the strength."""
    found, joint = gradients(InfoReg(starts=1), 2), gradients(Joint(), 2)
    assert equal(found[1][0], joint[1][0])
    assert not equal(found[1][1], joint[1][1])


def test_the_trace_is_that_of_the_loss_alone() -> None:
    balancer, optimizer = bound(InfoReg(starts=1))
    method: Any = balancer.method
    joint = gradients(Joint(), 1)[0]
    for _ in balancer.epoch(loader()):
        inputs, target = _
        optimizer.zero_grad()
        balancer(inputs, target).backward()
        optimizer.step()
    expected = sum(step["encoders.m0.weight"] ** 2 for step in joint)
    torch.testing.assert_close(method.traces.squares["m0"]["0"].data, expected)
    assert "1" not in method.traces.squares["m0"]  # a bias


def test_the_official_variant_is_gated_by_the_first_trace_and_adds_the_losses() -> None:
    method = InfoReg(variant="official")
    assert method.ingredients == {"unimodal losses"}
    balancer, optimizer = bound(method)
    for inputs, target in balancer.epoch(loader()):
        optimizer.zero_grad()
        loss = balancer(inputs, target)
        output = balancer.model(inputs)
        parts = [output.logits, *output.split.values()]
        expected = sum(nn.functional.cross_entropy(z, target) for z in parts)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        plain = {k: p.grad.clone() for k, p in _learning(balancer)}
        state: Any = balancer.method
        old = {m: x["0"].detach().clone() for m, x in state.anchors.weights.items()}
        here = {k: p.detach().clone() for k, p in _learning(balancer)}
        optimizer.step()
        s = {m: balancer.task.score(z, target).sum() for m, z in output.split.items()}
        factor = 0.95 if s["m0"] > s["m1"] else 0.1
        leading = max(s, key=lambda m: float(s[m]))
        for m in s:
            name = f"encoders.{m}.weight"
            delta = (s["m0"] - s["m1"]).abs()
            alpha = factor * torch.exp(torch.tanh(delta)) if m == leading else 0.0
            grad = dict(_learning(balancer))[name].grad
            torch.testing.assert_close(grad, plain[name] + alpha * (here[name] - old[m]))


def test_the_official_variant_takes_two_modalities_and_no_settings() -> None:
    with pytest.raises(ValueError, match="two modalities"):
        bound(InfoReg(variant="official"), 3)
    with pytest.raises(ValueError, match="sets every other argument"):
        InfoReg(variant="official", threshold=0.1)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match='`score` should be "log" or "prob_sum"'):
        InfoReg(score="probability")
    with pytest.raises(ValueError, match="`smooth` should be 1 or more"):
        InfoReg(smooth=0)
