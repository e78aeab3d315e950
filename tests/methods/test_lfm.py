"""LFM: the worked numbers, the schedules, and the learned weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.functional.divergence import js_divergence, mixture_divergence
from equivox.functional.outcomes import log_probabilities
from equivox.functional.schedules import fitted_weight, heuristic_weight
from equivox.fusion import Concat, Gated, SharedHead, additive
from equivox.method import Batch
from equivox.methods.objective.lfm import LFM, averaged_logits
from equivox.mmtm import MMTM
from equivox.modules.gated_features import GatedFeatures
from equivox.modules.growing import Growing
from equivox.step import Step
from equivox.testing import Problem
from equivox.testing.problem import sgd, steps

AUDIO = torch.tensor([[2.0, 0, 0], [0, 1, 0]])
VIDEO = torch.tensor([[0.0, 1, 0], [0, 1, 0]])
Y = torch.tensor([0, 1])


def balancer_of(method: LFM) -> ev.Balancer:
    """Linear heads that are identities, averaged: features are the logits."""
    fusion = ev.Sum({"audio": 3, "video": 3}, 3)
    for linear in fusion.linears.values():
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
        linear.weight.data /= 2
    model = ev.Multimodal({"audio": nn.Identity(), "video": nn.Identity()}, fusion)
    return ev.Balancer(model, method, task=ev.Classification())


def loss_with(k: float, **options: Any) -> Tensor:
    balancer = balancer_of(LFM(schedule=k, **options))
    for inputs, target in balancer.epoch([({"audio": AUDIO, "video": VIDEO}, Y)]):
        loss = balancer(inputs, target).detach()
    return loss


def test_worked_alignment() -> None:
    p, q = log_probabilities(AUDIO), log_probabilities(VIDEO)
    assert float(mixture_divergence(p, q).mean()) == pytest.approx(0.109588, abs=1e-6)
    assert float(js_divergence(p, q).mean()) == pytest.approx(0.092875, abs=1e-6)


@pytest.mark.parametrize(("k", "expected"), [(0.05, 1.181087), (0.95, 0.269803)])
def test_worked_loss(k: float, expected: float) -> None:
    assert float(loss_with(k)) == pytest.approx(expected, abs=2e-6)


def alignment(inputs: dict[str, Tensor], weight: Tensor | None, **options: Any) -> Tensor:
    """L_al of a step with these samples and their weights."""
    balancer = balancer_of(LFM(schedule=0.5, **options))
    balancer.method.k.fill_(0.5)
    target = torch.zeros(len(inputs["audio"]), dtype=torch.long)
    step = Step(balancer.model, balancer.task, Batch(inputs, target), 0, torch.Generator())
    step.output, step.weight = balancer.model(inputs), weight
    return balancer.method.losses({"joint": torch.zeros(())}, step)["alignment"].detach()


@pytest.mark.parametrize("options", [{}, {"alignment": "js"}])
def test_a_sample_of_weight_two_is_there_twice(options: dict[str, Any]) -> None:
    given, twice = {"audio": AUDIO, "video": VIDEO}, torch.tensor([0, 0, 1])
    found = alignment(given, torch.tensor([2.0, 1]), **options)
    expected = alignment({m: z[twice] for m, z in given.items()}, None, **options)
    torch.testing.assert_close(found, expected)


def test_weights_of_contrasted_samples() -> None:
    drawn = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    given = dict(zip(("audio", "video"), drawn, strict=True))
    alone = [alignment(given, weight, alignment="infonce") for weight in torch.eye(3)]
    found = alignment(given, torch.tensor([3.0, 0, 1]), alignment="infonce")
    torch.testing.assert_close(found, (3 * alone[0] + alone[2]) / 4)
    whole = alignment(given, None, alignment="infonce")
    torch.testing.assert_close(whole, torch.stack(alone).mean())


def test_without_alignment_it_is_twice_the_loss() -> None:
    assert torch.equal(loss_with(0.0), 2 * F.cross_entropy((AUDIO + VIDEO) / 2, Y))


def test_averaged_logits_have_the_fused_ones_as_their_mean() -> None:
    names = {"a": 4, "b": 3, "c": 5}
    for fusion in (ev.Concat(names, 3), ev.Sum(names, 3)):
        model = ev.Multimodal({m: nn.Linear(2, w) for m, w in names.items()}, fusion)
        output = model({m: torch.randn(4, 2) for m in names})
        mean = torch.stack(list(averaged_logits(output).values())).mean(0)
        torch.testing.assert_close(mean, output.logits)


def test_heuristic_weights() -> None:
    found = [heuristic_weight(t - 1) for t in (1, 2, 5, 10, 50, 100)]
    expected = [0.632121, 0.393469, 0.181269, 0.095163, 0.019801, 0.009950]
    assert found == pytest.approx(expected, abs=1e-6)


def test_fitted_weights() -> None:
    found = [fitted_weight(e) for e in (0, 10, 50, 100, 150, 199, 220)]
    expected = [0.204624, 0.247759, 0.436681, 0.539155, 0.821314, 0.915989, 0.322069]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("clamp", "least"), [((0.05, 0.95), 0.05), (None, -0.01035)])
def test_fitted_schedule_is_stretched_and_clamped(
    clamp: tuple[float, float] | None, least: float
) -> None:
    balancer = balancer_of(LFM(schedule="fitted", epochs=100, clamp=clamp))
    met = []
    for _ in range(100):
        for inputs, target in balancer.epoch([({"audio": AUDIO, "video": VIDEO}, Y)]):
            balancer(inputs, target)
            met.append(float(balancer.method.k))
    assert met[0] == pytest.approx(1 - 0.204624, abs=1e-6)
    assert met[50] == pytest.approx(1 - 0.539155, abs=1e-6)
    assert min(met) == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize("schedule", ["learned", "learned_code"])
def test_learned_schedules_move_the_weight_and_leave_the_model(schedule: str) -> None:
    problem = Problem()
    balancer = problem.balancer(LFM(schedule=schedule, rate=50.0))
    optimizer = sgd(balancer)
    before = [p.detach().clone() for p in balancer.model.parameters()]
    batches = balancer.epoch(problem.loader())
    next(batches)
    assert all(torch.equal(p, q) for p, q in zip(balancer.model.parameters(), before, strict=True))
    assert 0.05 <= float(balancer.method.k) <= 0.95
    del batches
    balancer = problem.balancer(LFM(schedule=schedule, rate=50.0))
    optimizer = sgd(balancer)
    assert all(loss.isfinite() for loss in steps(balancer, optimizer, problem.loader(), 3))
    assert float(balancer.method.k) < 0.95


def test_infonce_aligns_the_features() -> None:
    agreeing = loss_with(1.0, alignment="infonce", temperature=1.0)
    assert float(agreeing) > 0
    model = ev.Multimodal(
        {m: nn.Linear(2, w) for m, w in {"a": 2, "b": 3}.items()}, ev.Concat({"a": 2, "b": 3}, 2)
    )
    with pytest.raises(ValueError, match="equally wide"):
        ev.Balancer(model, LFM(alignment="infonce"), task=ev.Classification())


def test_learned_needs_validation_data() -> None:
    with pytest.raises(ValueError, match="held-out"):
        balancer_of(LFM(schedule="learned"))


@pytest.mark.parametrize("options", [{"schedule": "x"}, {"schedule": 2.0}, {"alignment": "x"}])
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="should"):
        LFM(**options)


def test_a_fitted_schedule_stays_where_it_ended() -> None:
    problem = Problem()
    balancer = problem.balancer(LFM(schedule="fitted", epochs=2))
    found = []
    for _ in range(5):
        for _ in steps(balancer, sgd(balancer), problem.loader()):
            pass
        found.append(float(balancer.method.k))  # type: ignore[arg-type]
    assert found[0] > found[1] >= found[2] == found[3] == found[4]
    assert found[4] < 0.1


def test_a_wrapped_fusion_is_additive_where_the_inner_one_is() -> None:
    widths = {"a": 4, "b": 4}
    assert additive(MMTM(widths, 3)) and additive(Concat(widths, 3))
    assert not additive(MMTM(widths, 3, fusion=Gated(widths, 3)))
    assert not additive(GatedFeatures(MMTM(widths, 3, fusion=Gated(widths, 3)), ("a", "b")))


def test_a_boosted_or_weighted_sum_is_not_additive() -> None:
    assert not additive(SharedHead({"a": 4}, 3, boost=True)) and additive(SharedHead({"a": 4}, 3))
    assert not additive(Growing({"a": 4, "b": 4}, 3, capacity=2, hidden=4))
