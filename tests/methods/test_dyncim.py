from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.functional.curriculum import curriculum_weights, sample_metrics
from equivox.functional.gating import geometric_mean_ratio, harmonic_mean_rate, modality_gates
from equivox.methods.data.dyncim import DynCIM
from equivox.methods.yardstick.unimodal_losses import UnimodalLosses
from equivox.modules.running import RunningMoments

Items = list[tuple[dict[str, Tensor], Tensor]]


def items(names: str = "ab", batches: int = 3) -> Items:
    draw = torch.Generator().manual_seed(1)
    return [
        ({m: torch.randn(6, 3, generator=draw) for m in names}, torch.arange(6) % 2)
        for _ in range(batches)
    ]


def balanced(method: ev.Method, names: str = "ab") -> tuple[ev.Balancer, torch.optim.Optimizer]:
    torch.manual_seed(0)
    nets = {m: nn.Linear(3, 4) for m in names}
    model = ev.Multimodal(nets, ev.Concat(dict.fromkeys(names, 4), 2))
    balancer = ev.Balancer(model, method, task=ev.Classification())
    return balancer, balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.3, momentum=0.9))


def trained(balancer: ev.Balancer, optimizer: torch.optim.Optimizer, data: Items) -> list[float]:
    losses = []
    for x, y in balancer.epoch(data):
        loss = balancer(x, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_by_hand() -> None:
    ratio = geometric_mean_ratio(torch.tensor(0.8), torch.tensor([0.4, 0.8]))
    assert ratio.item() == pytest.approx(math.sqrt(2), abs=1e-6)
    assert harmonic_mean_rate(torch.tensor([0.1, 0.3])).item() == pytest.approx(0.15)


def test_ratio_and_rate_do_not_depend_on_order_and_scale() -> None:
    q, rates = torch.tensor([0.4, 0.8, 0.5]), torch.tensor([0.1, 0.3, 0.2])
    found = geometric_mean_ratio(torch.tensor(0.6), q)
    torch.testing.assert_close(geometric_mean_ratio(torch.tensor(0.3), q.flip(0) / 2), found)
    found = harmonic_mean_rate(rates)
    torch.testing.assert_close(harmonic_mean_rate(3 * rates.flip(0)), 3 * found)
    assert rates.min() < found < rates.mean()


def test_metrics_do_not_depend_on_the_order_of_the_modalities() -> None:
    torch.manual_seed(0)
    fused, y = torch.randn(5, 4), torch.arange(5) % 4
    alone = {m: torch.randn(5, 4) for m in "abc"}
    other = dict(reversed(alone.items()))
    found = sample_metrics(fused, alone, y, ev.Classification())
    torch.testing.assert_close(sample_metrics(fused, other, y, ev.Classification()), found)


def test_running_moments_start_with_the_first_value() -> None:
    past = RunningMoments((2,), beta=0.75)
    assert past.ratio(torch.tensor([3.0, 5.0])).tolist() == [1.0, 1.0]
    for x in ([2.0, 4.0], [4.0, 4.0]):
        past.follow_(torch.tensor(x))
    assert past.mean.tolist() == [2.5, 4.0]
    assert past.variance.tolist() == [1.0, 0.0]  # (4 - 2)² / 4
    assert past.ratio(torch.tensor([5.0, 2.0])).tolist() == [2.0, 0.5]


@pytest.mark.parametrize("task", [ev.Classification(), ev.MultiLabel()])
def test_agreement_is_consistent(task: ev.Task) -> None:
    torch.manual_seed(0)
    z = torch.randn(5, 4)
    y = torch.arange(5) % 4 if isinstance(task, ev.Classification) else (z > 0).long()
    metrics = sample_metrics(z, {"a": z, "b": z + 0.0, "c": z}, y, task)
    torch.testing.assert_close(metrics[1], torch.zeros(5), rtol=0, atol=1e-6)
    q = task.score(z, y).mean()
    assert geometric_mean_ratio(q, q.expand(3)).item() == pytest.approx(1.0)


def test_metrics_by_hand() -> None:
    z, u = torch.tensor([[0.0, 0.0]]), torch.tensor([[40.0, -40.0]])
    d, c, h = sample_metrics(z, {"a": u, "b": z}, torch.tensor([0]), ev.Classification())
    log2 = math.log(2)
    # omega = softmax(0, -log 2) = (2/3, 1/3) on the losses (0, log 2)
    assert d.item() == pytest.approx(log2 + log2 / 3)
    divergence = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * log2
    assert c.item() == pytest.approx(divergence / 2)
    assert h.item() == pytest.approx(0.5)


def test_regression_has_squared_differences_and_no_entropy() -> None:
    z, u, y = torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([[1.0]])
    d, c, h = sample_metrics(z, {"a": u, "b": z}, y, ev.Regression(1))
    assert c.item() == 2.0
    assert h.item() == 0.0
    assert d.item() == pytest.approx(4 * math.exp(-4) / (1 + math.exp(-4)))


def test_weights_are_even_in_the_middle_and_turn_round() -> None:
    method = DynCIM(curriculum=10, warmup=0)
    difficulty = torch.linspace(0, 1, 9)
    assert method.slope(5) == 0 and DynCIM(eta=0.0).slope(3) == 0 and DynCIM(warmup=2).slope(1) == 0
    assert torch.equal(curriculum_weights(difficulty, difficulty.mean(), 0.0), torch.ones(9))
    for epoch, sign in ((0, -1), (10, 1), (30, 1)):
        weights = curriculum_weights(difficulty, difficulty.mean(), method.slope(epoch))
        assert (sign * weights.diff() > 0).all()
    clipped = curriculum_weights(difficulty, difficulty.mean(), 100.0)
    assert clipped.min().item() == pytest.approx(0.1) and clipped.max().item() == 10


def test_gates_average_to_one() -> None:
    torch.manual_seed(0)
    for count in (1, 2, 3, 4):
        q, rates = torch.rand(count), torch.rand(count) + 1e-3
        assert modality_gates(q, rates, 0.3, 0.5).mean().item() == pytest.approx(1.0)
        equal = modality_gates(torch.full((count,), 0.4), torch.full((count,), 1e-3), 0.3, 0.5)
        torch.testing.assert_close(equal, torch.ones(count))
    order = torch.tensor([2, 0, 1])
    q, rates = torch.rand(3), torch.rand(3)
    permuted = modality_gates(q[order], rates[order], 0.3, 0.5)
    torch.testing.assert_close(permuted, modality_gates(q, rates, 0.3, 0.5)[order])
    assert modality_gates(torch.zeros(2), torch.full((2,), 1e-3), 0.5, 0.5).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_the_warm_up_is_joint_training_with_unimodal_heads(names: str) -> None:
    ours = trained(*balanced(DynCIM(), names), items(names))
    assert ours == trained(*balanced(UnimodalLosses(), names), items(names))


def test_without_sharpness_the_loss_is_the_plain_mean() -> None:
    found = trained(*balanced(DynCIM(eta=0.0, warmup=0)), items(batches=1))
    assert found == trained(*balanced(UnimodalLosses()), items(batches=1))


def test_the_loss_is_the_weighted_mean_and_its_weights_are_constants() -> None:
    balancer, _ = balanced(DynCIM(warmup=0))
    x, y = items(batches=1)[0]
    output = balancer.model(x)
    said = {m: balancer.model.heads[m](z) for m, z in output.features.items()}  # type: ignore[index]
    metrics = sample_metrics(output.logits, said, y, ev.Classification()).detach()
    hard = (metrics / metrics.amax(1, keepdim=True)).mean(0)  # equal volatilities at first
    w = torch.exp(-(hard - hard.mean()))
    w = w / w.mean()
    assert w.mean().item() == pytest.approx(1.0)
    each = [
        nn.functional.cross_entropy(z, y, reduction="none") for z in (output.logits, *said.values())
    ]
    expected = sum((w * loss).mean() for loss in each)
    parameters = list(balancer.model.parameters())
    wanted = torch.autograd.grad(expected, parameters)  # type: ignore[arg-type]
    loss = balancer(x, y)
    torch.testing.assert_close(loss, expected)
    for one, other in zip(torch.autograd.grad(loss, parameters), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_gate_acts_in_prediction_and_averages_to_one() -> None:
    method = DynCIM(warmup=0, curriculum=3)
    balancer, optimizer = balanced(method)
    data = [({"a": y[:, None].expand(-1, 3).float(), "b": x["b"]}, y) for x, y in items()]
    for _ in range(4):
        trained(balancer, optimizer, data)
    gate = balancer.model.fusion.gate
    assert gate.mean().item() == pytest.approx(1.0)
    assert gate[0] > 1.01  # the modality that says something
    x = data[0][0]
    z = balancer.model.encode(x)
    inner = balancer.model.fusion.inner({"a": gate[0] * z["a"], "b": gate[1] * z["b"]})
    torch.testing.assert_close(balancer.predict(x), inner)
    shares = balancer.model.unimodal(z, split=True)
    torch.testing.assert_close(sum(shares.values()), inner)


def test_perfect_and_hopeless_answers_stay_finite() -> None:
    balancer, optimizer = balanced(DynCIM(warmup=0, curriculum=2))
    for scale in (0.0, 1e4):
        data = [({m: scale * v for m, v in x.items()}, y) for x, y in items()]
        trained(balancer, optimizer, data)
    assert all(v.isfinite().all() for v in balancer.state_dict().values())


def test_a_batch_without_a_modality_leaves_the_gates() -> None:
    balancer, optimizer = balanced(DynCIM(warmup=0))
    x, y = items(batches=1)[0]
    balancer({"a": x["a"], "present": {"b": False}}, y).backward()
    optimizer.step()
    assert balancer.model.fusion.gate.tolist() == [1.0, 1.0]


def test_refusals() -> None:
    for arguments in ({"eta": -1.0}, {"curriculum": 0}, {"beta": 1.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` should"):
            DynCIM(**arguments)  # type: ignore[arg-type]
