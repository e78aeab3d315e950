"""OLM: the worked example, epoch 0, what the second term moves, the held-out cycle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox import Balancer, Classification, Concat, Method, Multimodal, Regression
from equivox.functional.learning_rates import lag, speed_ratios
from equivox.functional.norms import norm_distance
from equivox.methods.objective.olm import OLM

LOGITS = {
    "v": torch.tensor([[3.0, 4], [0, 1]]),
    "a": torch.tensor([[6.0, 8], [0, 2]]),
    "joint": torch.tensor([[0.0, 5], [3, 0]]),
}


def named(*values: float) -> dict[str, Tensor]:
    return {k: torch.tensor(value) for k, value in zip(LOGITS, values, strict=True)}


def bound(method: Method, task: Any = None, outputs: int = 3) -> Balancer:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3, 4) for i in range(2)}
    model = Multimodal(net, Concat(dict.fromkeys(net, 4), outputs))
    held_out = loader(2, seed=5)
    balancer = Balancer(model, method, task=task or Classification(), validation=held_out)
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    return balancer


def loader(steps: int = 3, seed: int = 3) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, 2, 6, 3, generator=generator)
    return [({"m0": x[i, 0], "m1": x[i, 1]}, torch.arange(6) % 3) for i in range(steps)]


def train(balancer: Balancer, epochs: int) -> list[Tensor]:
    assert balancer.optimizer is not None
    losses = []
    for _ in range(epochs):
        for batch in balancer.epoch(loader()):
            balancer.optimizer.zero_grad()
            losses.append(balancer(*batch))
            losses[-1].backward()
            balancer.optimizer.step()
    return losses


def test_the_worked_example() -> None:
    target = torch.tensor([1, 0])
    scales = {k: torch.ones((), requires_grad=True) for k in LOGITS}
    cross_entropy = nn.functional.cross_entropy
    sums = [cross_entropy(scales[k] * z, target, reduction="sum") for k, z in LOGITS.items()]
    assert [x.item() for x in sums] == pytest.approx([1.626523, 2.253856, 0.055303], abs=1e-6)
    slopes = torch.autograd.grad(sum(sums), list(scales.values()))  # type: ignore[arg-type]
    assert [g.item() for g in slopes] == pytest.approx([0.462117, 1.523188, -0.175742], abs=1e-6)

    ratios = speed_ratios(named(1.0, 0.5, 0.2), named(1.0, 2.5, 1.8))
    wanted = [0.537507, 0.241517, 0.220976]
    assert [r.item() for r in ratios.values()] == pytest.approx(wanted, abs=1e-6)
    norms = {k: torch.linalg.vector_norm(z, dim=1) for k, z in LOGITS.items()}
    distance = norm_distance(scales, norms, ratios).sum()
    assert distance.item() == pytest.approx(17.483361, abs=2e-6)
    pulls = torch.autograd.grad(distance, list(scales.values()))
    assert [g.item() for g in pulls] == [4.0, 12.0, 8.0]


def test_loss_ratios_of_the_worked_example() -> None:
    found = lag(torch.tensor([1.0, 1.0, 1.5]), torch.tensor([2.0, 4.0, 3.0]))
    assert found.tolist() == pytest.approx([1.2, 0.6, 1.2])
    assert lag(torch.zeros(3), torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]


def test_a_negative_overfitting_speed_gives_one_branch_everything() -> None:
    found = speed_ratios(named(0.5, 0.5, 0.5), named(-0.1, 1.0, 2.0))
    assert [r.item() for r in found.values()] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "share"),
    [({}, 1 / 3), ({"normalise": "mean"}, 1.0), ({"variant": "loss_ratio"}, 1.0)],
)
def test_epoch_zero_treats_branches_alike(arguments: dict[str, Any], share: float) -> None:
    """The references are the losses themselves, so that the second term can be written down."""
    balancer = bound(OLM(lr=0.0, **arguments))
    for inputs, target in balancer.epoch(loader()):
        loss = balancer(inputs, target)
        output = balancer.model(inputs)
        branches = [*output.unimodal.values(), output.logits]
        norms = torch.stack([z.norm(dim=1) for z in branches])
        expected = sum(nn.functional.cross_entropy(z, target) for z in branches)
        expected = expected + (norms - share * norms.mean(0)).abs().sum(0).mean()
        torch.testing.assert_close(loss, expected)
        loss.backward()


def test_fixed_scales_are_plain_training_of_all_branches() -> None:
    ours = bound(OLM(lr=0.0))
    train(ours, 2)
    plain = bound(OLM(lr=0.0))
    model = plain.model
    assert plain.optimizer is not None
    for _ in range(2):
        for inputs, target in loader():
            plain.optimizer.zero_grad()
            output = model(inputs)
            branches = [output.logits, *output.unimodal.values()]
            terms = [nn.functional.cross_entropy(z, target) for z in branches]
            sum(terms).backward()  # type: ignore[union-attr]
            plain.detach()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
            plain.attach(torch.optim.SGD(plain.parameters(), lr=0.1))
    for a, b in zip(ours.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_second_term_moves_the_scales_alone() -> None:
    balancer = bound(OLM())
    method: Any = balancer.method
    inputs, target = next(iter(balancer.epoch(loader())))
    balancer(inputs, target).backward()
    found = [p.grad.clone() for p in balancer.model.parameters() if p.grad is not None]
    output = balancer.model(inputs)
    branches = {**output.unimodal, "joint": output.logits}
    terms = [nn.functional.cross_entropy(method.scales[k] * z, target) for k, z in branches.items()]
    expected = torch.autograd.grad(sum(terms), list(balancer.model.parameters()))  # type: ignore[arg-type]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert all(p.grad.abs() > 0 for p in method.scales.parameters())


def test_prediction_is_the_fusion_and_references_stay_after_epoch_zero() -> None:
    balancer = bound(OLM(lr=0.1))
    method: Any = balancer.method
    train(balancer, 1)
    kept = {k: x.detach().clone() for k, x in method.reference.items()}
    train(balancer, 1)
    assert all(torch.equal(method.reference[k], x) for k, x in kept.items())
    inputs, _ = loader()[0]
    assert not torch.equal(method.scales["joint"], torch.ones(()))
    assert torch.equal(balancer.predict(inputs), balancer.model(inputs).logits)


def test_held_out_batches_are_cycled() -> None:
    balancer = bound(OLM())
    seen = []
    for batch in balancer.epoch(loader(5)):
        seen.append(balancer._queue[0].extra["inputs"]["m0"])
        balancer(*batch).backward()
    first, second = (x["m0"] for x, _ in loader(2, seed=5))
    for i, x in enumerate(seen):
        assert torch.equal(x, (first, second)[i % 2])


def test_sums_are_means_times_the_batch() -> None:
    mean, total = train(bound(OLM()), 1)[0], train(bound(OLM(reduction="sum")), 1)[0]
    torch.testing.assert_close(total, 6 * mean)


def test_regression_has_no_second_term() -> None:
    balancer = bound(OLM(), Regression(), outputs=1)
    inputs, target = next(iter(balancer.epoch(loader())))
    output = balancer.model(inputs)
    target = target.float().unsqueeze(1)
    terms = [nn.functional.mse_loss(z, target) for z in (output.logits, *output.unimodal.values())]
    torch.testing.assert_close(balancer(inputs, target), sum(terms))


def test_what_it_needs_is_said() -> None:
    assert OLM().needs_validation
    assert not OLM(variant="loss_ratio").needs_validation
    with pytest.raises(ValueError, match='`variant` should be "generalisation" or'):
        OLM(variant="speed")
    with pytest.raises(ValueError, match="`lr` should be zero or more"):
        OLM(lr=-1.0)


def test_scales_follow_an_adam_of_their_own() -> None:
    balancer = bound(OLM(lr=0.01))
    method: Any = balancer.method
    twin = {k: nn.Parameter(torch.ones(())) for k in method.scales}
    adam = torch.optim.Adam(twin.values(), lr=0.01)
    for batch in [*loader(), *loader(seed=7)]:
        train_on(balancer, batch)
        for k, p in twin.items():
            p.grad = method.scales[k].grad.clone()
        adam.step()
    for k, p in twin.items():
        torch.testing.assert_close(method.scales[k], p)


def train_on(balancer: Balancer, batch: Any) -> None:
    assert balancer.optimizer is not None
    for given in balancer.epoch([batch]):
        balancer.optimizer.zero_grad()
        balancer(*given).backward()
        balancer.optimizer.step()


def test_regression_predicts_with_the_scale() -> None:
    balancer = bound(OLM(), Regression(1), outputs=1)
    method: Any = balancer.method
    with torch.no_grad():
        method.scales["joint"].fill_(2.0)
    inputs, _ = loader()[0]
    assert torch.equal(balancer.predict(inputs), 2 * balancer.model(inputs).logits)
