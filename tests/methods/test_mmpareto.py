from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.methods.objective.mmpareto import MMPareto, pareto_gradient, pareto_weights
from equivox.step import Update


def vectors(*values: list[float]) -> list[list[Tensor]]:
    return [[torch.tensor(value)] for value in values]


def added(gradients: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)]


def close(found: list[Tensor], *expected: list[float]) -> None:
    for part, numbers in zip(found, expected, strict=True):
        torch.testing.assert_close(part, torch.tensor(numbers), rtol=1e-5, atol=1e-6)


def test_conflict_by_hand() -> None:
    g = vectors([1.0, 0.0], [-2.0, 2.0])
    close([pareto_weights(g)], [0.769231, 0.230769])
    close(pareto_gradient(g, added(g)), [1.860521, 2.790782])


def test_no_loss_is_opposed() -> None:
    g = vectors([1.0, 0.0], [-2.0, 2.0])
    (new,) = pareto_gradient(g, vectors([0.0, 0.0])[0], gamma=1.0)  # nothing to restore
    for (own,) in g:
        assert float(new @ own) == pytest.approx(0.615385, abs=1e-6)


def test_lengths_are_restored_tensor_by_tensor() -> None:
    g = [[torch.tensor([1.0]), torch.tensor([0.0])], [torch.tensor([-2.0]), torch.tensor([2.0])]]
    close(pareto_gradient(g, added(g)), [1.5], [3.0])
    close(pareto_gradient(g, added(g), rescale="encoder"), [1.860521], [2.790782])


def test_agreeing_gradients_are_summed_and_enlarged() -> None:
    g = vectors([1.0, 1.0], [0.0, 2.0])
    close(pareto_gradient(g, added(g)), [1.5, 4.5])


@pytest.mark.parametrize("length", [1.0, 3.0, 0.3, 0.7])
def test_opposite_gradients_cancel_without_nan(length: float) -> None:
    torch.manual_seed(0)
    first = torch.randn(50)
    g = [[first], [-length * first]]
    assert torch.equal(pareto_gradient(g, added(g))[0], torch.zeros(50))


@pytest.mark.parametrize("missing", [0, 1])
def test_a_loss_without_gradient_leaves_the_other(missing: int) -> None:
    g = vectors([1.0, -2.0], [1.0, -2.0])
    g[missing][0].zero_()
    close(pareto_gradient(g, added(g)), [1.5, -3.0])


def test_three_objectives_are_summed_or_not_opposed() -> None:
    torch.manual_seed(0)
    agreeing = vectors([1.0, 0.1], [1.0, 0.0], [1.0, -0.1])
    close(pareto_gradient(agreeing, added(agreeing), gamma=1.0), [3.0, 0.0])
    conflicting = [[torch.randn(6)] for _ in range(2)]
    conflicting.append([-0.5 * conflicting[0][0] + torch.randn(6)])
    (new,) = pareto_gradient(conflicting, added(conflicting))
    assert all(float(new @ g) > 0 for (g,) in conflicting)


class Seen(MMPareto):
    """Keeps what the stage was given."""

    def gradients(self, update: Update) -> None:
        self.before = {p: p.grad.clone() for p in update.model.parameters()}
        self.losses_of = {name: sorted(of) for name, of in update.per_loss.items()}
        super().gradients(update)


def model(count: int, shared: nn.Module | None = None) -> ev.Multimodal:
    names = "abcd"[:count]
    nets = {m: nn.Sequential(nn.Linear(3, 4), nn.Tanh()) for m in names}
    if shared is not None:
        for net in nets.values():
            net.append(shared)
    return ev.Multimodal(nets, ev.Concat(dict.fromkeys(names, 4), 3))


def batch(count: int) -> tuple[dict[str, Tensor], Tensor]:
    return {m: torch.randn(12, 3) for m in "abcd"[:count]}, torch.arange(12) % 3


def test_without_conflict_and_enlargement_it_is_the_summed_loss() -> None:
    torch.manual_seed(0)
    method = Seen(gamma=1.0)
    balancer = ev.Balancer(model(2), method, task=ev.Classification())
    # Heads that agree with the fusion: both losses pull every encoder the same way.
    for m, weight in balancer.model.fusion.weights().items():
        balancer.model.heads[m].weight.data.copy_(weight)
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    balancer(*batch(2)).backward()
    optimizer.step()
    for parameter, before in method.before.items():
        torch.testing.assert_close(parameter.grad, before)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fusion_and_heads_keep_the_gradient_of_the_sum(count: int) -> None:
    torch.manual_seed(1)
    method = Seen()
    balancer = ev.Balancer(model(count), method, task=ev.Classification())
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    balancer(*batch(count)).backward()
    optimizer.step()
    assert {m: method.losses_of[m] for m in balancer.model.modalities} == {
        m: [m] for m in balancer.model.modalities
    }
    kept = [*balancer.model.fusion_parameters(), *balancer.model.head_parameters()]
    assert all(torch.equal(p.grad, method.before[p]) for p in kept)
    for p in balancer.model.encoders.parameters():
        assert p.grad.norm() >= 1.5 * method.before[p].norm() * (1 - 1e-5)


def test_micro_batches_are_one_update() -> None:
    def gradients(parts: int) -> list[Tensor]:
        torch.manual_seed(2)
        balancer = ev.Balancer(model(2), MMPareto(), task=ev.Classification())
        optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
        inputs, target = batch(2)
        for rows in torch.arange(12).chunk(parts):
            part = {m: x[rows] for m, x in inputs.items()}
            (balancer(part, target[rows]) / parts).backward()
        optimizer.step()
        return [p.grad for p in balancer.parameters()]

    for one, two in zip(gradients(1), gradients(2), strict=True):
        torch.testing.assert_close(one, two)


def test_a_shared_trunk_has_all_losses_as_objectives() -> None:
    torch.manual_seed(0)
    trunk = nn.Linear(4, 4)
    method = Seen()
    balancer = ev.Balancer(model(3, trunk), method, task=ev.Classification())
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    balancer(*batch(3)).backward()
    optimizer.step()
    assert set(method.losses_of) == {"joint", "a", "b", "c"}
    assert all("shared" in owners for owners in method.losses_of.values())
    assert trunk.weight.grad.norm() >= 1.5 * method.before[trunk.weight].norm() * (1 - 1e-5)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="`gamma`"):
        MMPareto(gamma=0.0)
    with pytest.raises(ValueError, match="`rescale`"):
        MMPareto(rescale="layer")


@pytest.mark.parametrize("count", [2, 3, 6])
def test_two_backward_passes_for_any_number_of_modalities(count: int) -> None:
    """Every encoder is gone through once forwards and twice backwards: joint, and all unimodal."""
    names = [f"m{i}" for i in range(count)]
    forwards, backwards = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    encoders = {m: torch.nn.Linear(3, 4) for m in names}

    def counted(modality: str) -> Callable[..., None]:
        def note(_module: object, _inputs: object, output: torch.Tensor) -> None:
            forwards[modality] += 1
            output.register_hook(lambda _: backwards.update({modality: backwards[modality] + 1}))

        return note

    for m, encoder in encoders.items():
        encoder.register_forward_hook(counted(m))
    model = ev.Multimodal(encoders, ev.Concat(dict.fromkeys(names, 4), 5))
    balancer = ev.Balancer(model, ev.MMPareto(), task=ev.Classification())
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    inputs = {m: torch.randn(6, 3) for m in names}
    balancer(inputs, torch.arange(6) % 5).backward()
    optimizer.step()
    assert forwards == dict.fromkeys(names, 1)
    assert backwards == dict.fromkeys(names, 2)
