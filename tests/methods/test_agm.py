"""AGM: the worked example, exact scaling of linear networks, windows, masks and clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox import Balancer, Classification, Concat, Joint, Method, Multimodal, Regression
from equivox.functional import shapley_values
from equivox.functional.discrepancy import discrepancies, factors_by_discrepancy
from equivox.methods.optimization.agm import AGM

NAMES = ("audio", "video")
TOGETHER = torch.tensor([[2, 0.5, -1], [0.2, 1, 0.3]])
ALONE = {
    "audio": torch.tensor([[1.5, 0.2, -0.5], [-0.1, 0.6, 0.2]]),
    "video": torch.tensor([[0.6, 0.4, -0.4], [0.3, 0.1, 0.2]]),
}
SCORES = {"audio": torch.tensor(0.511633), "video": torch.tensor(0.933113)}


def numbers(values: dict[str, Tensor]) -> list[float]:
    return [x.item() for x in values.values()]


def bound(method: Method, count: int = 2, bias: bool = False, **options: Any) -> Balancer:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3 + i, 4, bias=bias) for i in range(count)}
    model = Multimodal(net, Concat(dict.fromkeys(net, 4), 3))
    balancer = Balancer(model, method, task=options.pop("task", Classification()), **options)
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    return balancer


def batch(balancer: Balancer, rows: int = 8) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(3)
    names = balancer.model.modalities
    inputs = {m: torch.randn(rows, 3 + i, generator=generator) for i, m in enumerate(names)}
    return inputs, torch.randint(3, (rows,), generator=generator)


def stepped(balancer: Balancer) -> dict[str, Tensor]:
    inputs, target = batch(balancer)
    balancer.zero_grad()
    balancer(inputs, target).backward()
    balancer.optimizer.step()
    return {n: p.grad.clone() for n, p in balancer.model.named_parameters()}


def test_responses_of_the_worked_example() -> None:
    values = {frozenset({m}): x for m, x in ALONE.items()} | {frozenset(NAMES): TOGETHER}
    o = shapley_values(values, NAMES)
    torch.testing.assert_close(o["audio"], torch.tensor([[1.45, 0.15, -0.55], [-0.10, 0.75, 0.15]]))
    torch.testing.assert_close(o["video"], torch.tensor([[0.55, 0.35, -0.45], [0.30, 0.25, 0.15]]))
    torch.testing.assert_close(o["audio"] + o["video"], TOGETHER)
    scores = [
        -Classification().score(x, torch.tensor([0, 1])).log().mean().item() for x in o.values()
    ]
    assert scores == pytest.approx([0.511633, 0.933113], abs=1e-5)


def test_coefficients_of_the_worked_example() -> None:
    assert numbers(discrepancies(SCORES)) == pytest.approx([1.524217, 0.656075], abs=1e-5)
    first = factors_by_discrepancy(SCORES, dict.fromkeys(NAMES, torch.tensor(0.0)), alpha=1.5)
    assert numbers(first) == pytest.approx([0.455516, 1.675125], abs=1e-5)
    running = {"audio": torch.tensor(0.9), "video": torch.tensor(0.7)}
    assert numbers(discrepancies(running)) == pytest.approx([0.818731, 1.221403], abs=1e-5)
    later = factors_by_discrepancy(SCORES, running, alpha=1.5)
    assert numbers(later) == pytest.approx([0.347070, 2.334954], abs=1e-5)


def test_discrepancies_of_three() -> None:
    three = dict(zip("avt", torch.tensor([0.8, 1.1, 0.5]), strict=True))
    assert numbers(discrepancies(three)) == pytest.approx([1.0, 0.637628, 1.568312], abs=1e-5)


def test_only_the_upper_side_is_capped() -> None:
    scores = {"a": torch.tensor(0.0), "b": torch.tensor(18.0)}
    running = {"a": torch.tensor(18.0), "b": torch.tensor(0.0)}
    k = factors_by_discrepancy(scores, running, alpha=0.5, cap=4.0)
    assert k["a"].item() == 0.0
    assert k["b"].item() == pytest.approx(torch.tensor(2.0).exp().item())


def test_running_means_are_plain_averages() -> None:
    balancer = bound(AGM(clip=None))
    balancer.method.running.fill_(0.9)
    balancer.method.count.fill_(10)
    seen = []
    balancer.method._kappa = lambda scores, *_: (
        seen.append(scores) or dict.fromkeys(scores, torch.ones(()))
    )
    stepped(balancer)
    expected = [(0.9 * 10 + s.item()) / 11 for s in seen[0].values()]
    assert balancer.method.running.tolist() == pytest.approx(expected, abs=1e-6)
    assert pytest.approx(0.864694, abs=1e-6) == (0.9 * 10 + 0.511633) / 11


@pytest.mark.parametrize("mask", ["input", "feature"])
def test_scales_encoders_and_columns_of_a_linear_network(mask: str) -> None:
    plain = stepped(bound(Joint()))
    balancer = bound(AGM(mask=mask, clip=None))
    kappa = {"m0": torch.tensor(0.4), "m1": torch.tensor(1.7)}
    balancer.method._kappa = lambda *_: kappa
    scaled = stepped(balancer)
    columns = zip(
        kappa,
        scaled["fusion.linear.weight"].split(4, 1),
        plain["fusion.linear.weight"].split(4, 1),
        strict=True,
    )
    for m, new, old in columns:
        torch.testing.assert_close(new, kappa[m] * old)
        name = f"encoders.{m}.weight"
        torch.testing.assert_close(scaled[name], kappa[m] * plain[name])
    torch.testing.assert_close(scaled["fusion.linear.bias"], 1.05 * plain["fusion.linear.bias"])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("mask", ["input", "feature"])
@pytest.mark.parametrize("centre", [False, True])
def test_without_strength_it_is_joint_training_to_rounding(
    count: int, mask: str, centre: bool
) -> None:
    plain = stepped(bound(Joint(), count, bias=True))
    neutral = stepped(bound(AGM(alpha=0.0, mask=mask, clip=None, centre=centre), count, bias=True))
    for name, g in plain.items():
        torch.testing.assert_close(neutral[name], g)


def test_the_loss_is_that_of_the_plain_model() -> None:
    losses = []
    for method in (Joint(), AGM(alpha=2.0), AGM(alpha=2.0, mask="feature", centre=True)):
        balancer = bound(method, 3, bias=True)
        losses.append(balancer(*batch(balancer)).item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_masked_passes_leave_norms_and_dropout_alone() -> None:
    torch.manual_seed(0)
    net = {m: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for m in NAMES}
    balancer = Balancer(
        Multimodal(net, Concat(dict.fromkeys(NAMES, 4), 3)), AGM(), task=Classification()
    )
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
    balancer({m: torch.randn(8, 3) for m in NAMES}, torch.arange(8) % 3)
    assert all(net[m][1].num_batches_tracked == 1 and net[m][1].training for m in NAMES)


def test_the_window_and_what_follows_it() -> None:
    plain = stepped(bound(Joint()))
    for after_end in ("identity", "freeze"):
        balancer = bound(AGM(alpha=3.0, starts=1, ends=1, after_end=after_end, clip=None))
        same = []
        for epoch in range(3):
            balancer.progress.epoch = epoch
            balancer.method.running.zero_()  # the same batch again would be as good as usual
            scaled = stepped(balancer)
            same.append(torch.allclose(scaled["encoders.m0.weight"], plain["encoders.m0.weight"]))
        assert same == [True, False, after_end == "identity"]
        assert balancer.method.count.tolist() == [3, 3]


def test_clips_all_gradients_where_an_entry_of_the_head_is_large() -> None:
    free = stepped(bound(AGM(clip=None)))
    norm = torch.cat([g.flatten() for g in free.values()]).norm()
    head = free["fusion.linear.weight"].abs().max()
    limit = head.item() * 0.9
    clipped = stepped(bound(AGM(clip=limit)))
    for name, g in free.items():
        torch.testing.assert_close(clipped[name], g * (limit / (norm + 1e-6)).clamp(max=1))
    loose = stepped(bound(AGM(clip=head.item() * 1.1)))
    assert all(torch.equal(loose[name], g) for name, g in free.items())


def test_tokens_cannot_be_zeroed() -> None:
    net = {"text": nn.Sequential(nn.EmbeddingBag(9, 4)), "video": nn.Linear(3, 4)}
    inputs = {"text": torch.ones(6, 5, dtype=torch.long), "video": torch.ones(6, 3)}
    for mask in ("input", "feature"):
        model = Multimodal(net, Concat(dict.fromkeys(net, 4), 2))
        balancer = Balancer(model, AGM(mask=mask), task=Classification())
        balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.0))
        if mask == "feature":
            assert balancer(inputs, torch.arange(6) % 2).isfinite()
        else:
            with pytest.raises(TypeError, match="Found none in that of `text`"):
                balancer(inputs, torch.arange(6) % 2)


def test_scores_of_a_regression_are_capped_losses() -> None:
    balancer = bound(AGM(clip=None), task=Regression(3))
    inputs, _ = batch(balancer)
    balancer(inputs, torch.full((8, 3), 100.0)).backward()
    balancer.optimizer.step()
    assert balancer.method.running.tolist() == pytest.approx([18.420681] * 2, abs=1e-4)


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"clip": 0.0}, {"mask": "x"}, {"after_end": "x"}])
def test_refuses_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` should be"):
        AGM(**bad)
