"""CML: the worked numbers, the chain, and whom the hinge reaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.functional.confidence import rises
from equivox.method import Batch
from equivox.methods.objective.cml import CML
from equivox.step import Step
from equivox.testing.problem import Problem

FULL = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0.2, 0, 0]])
PART = torch.tensor([[3.0, 0, 0], [0, 0.5, 0], [0, 1, 0]])
LABELS = torch.tensor([0, 1, 1])


def largest(z: Tensor) -> Tensor:
    return z.softmax(1).amax(1)


def right(z: Tensor) -> Tensor:
    return (z.argmax(1) == LABELS).float()


def test_worked_hinges() -> None:
    found = rises(largest(FULL), largest(PART))
    torch.testing.assert_close(found, torch.tensor([0.122457, 0, 0.196964]), atol=1e-6, rtol=0)
    larger_correct = rises(largest(FULL), largest(PART), right(FULL))
    not_only = rises(largest(FULL), largest(PART), 1 - right(PART) * (1 - right(FULL)))
    for selected in (larger_correct, not_only):
        torch.testing.assert_close(selected, torch.tensor([0.122457, 0, 0]), atol=1e-6, rtol=0)


def test_a_sample_whose_confidence_drops_gets_no_gradient() -> None:
    z = FULL.clone().requires_grad_()
    rises(largest(z), largest(PART)).sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad[1], torch.zeros(3))
    assert bool((z.grad[[0, 2]].abs().sum(1) > 0).all())


def late_fusion(
    audio: Tensor, video: Tensor, outputs: int, **options: float | str | bool
) -> ev.Balancer:
    """Features are the logits: the encoders and the fusion are identities, the bias is zero."""
    width = audio.shape[1]
    fusion = ev.Concat({"audio": width, "video": video.shape[1]}, outputs)
    with torch.no_grad():
        fusion.linear.weight.copy_(torch.cat([torch.eye(outputs)] * 2, 1))
        fusion.linear.bias.zero_()
    model = ev.Multimodal({"audio": scale(), "video": scale()}, fusion)
    return ev.Balancer(model, CML(**options), task=ev.Classification())  # type: ignore[arg-type]


def scale() -> nn.Module:
    layer = nn.Conv1d(1, 1, 1, bias=False)
    nn.init.ones_(layer.weight)
    return nn.Sequential(nn.Unflatten(1, (1, -1)), layer, nn.Flatten())


AUDIO = torch.tensor([[2.0, 0], [0, 0.5]])
VIDEO = torch.tensor([[-1.0, 0], [0, 1]])
Y = torch.tensor([0, 1])


def by_hand(removed: list[Tensor], reduction: str = "sum") -> Tensor:
    """L over the samples, of which `removed` says what each keeps at last."""
    full, part = AUDIO + VIDEO, torch.stack(removed)
    hinge = torch.relu(largest(part) - largest(full))
    cross = (F.cross_entropy(full, Y) + F.cross_entropy(part, Y)) / 2
    return cross + 0.1 * (hinge.sum() if reduction == "sum" else hinge.mean())


def test_worked_late_fusion() -> None:
    assert float(by_hand([AUDIO[0], AUDIO[1]])) == pytest.approx(0.293894, abs=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_orders_are_drawn_for_every_sample_and_batch(reduction: str) -> None:
    balancer = late_fusion(AUDIO, VIDEO, 2, reduction=reduction)
    possible = [
        by_hand([a, b], reduction) for a in (AUDIO[0], VIDEO[0]) for b in (AUDIO[1], VIDEO[1])
    ]
    met = set()
    for _ in range(40):
        loss = balancer({"audio": AUDIO, "video": VIDEO}, Y).detach()
        distances = torch.stack([(loss - value).abs() for value in possible])
        assert float(distances.min()) < 1e-6
        met.add(int(distances.argmin()))
    assert met == {0, 1, 2, 3}


@pytest.mark.parametrize(("reduction", "factor"), [("mean", 1), ("sum", 2)])
def test_weights_share_the_batch_among_its_samples(reduction: str, factor: int) -> None:
    features = {
        "audio": torch.tensor([[2.0, 0], [1, 0]]),
        "video": torch.tensor([[0, 2.0], [0, 1]]),
    }
    balancer = late_fusion(AUDIO, VIDEO, 2, reduction=reduction, chain_loss=False, weight=1.0)
    step = Step(balancer.model, balancer.task, Batch(features, Y), 0, torch.Generator())
    step.output = balancer.model(features)
    # Whichever is removed, confidence rises from 1/2 to sigmoid(2) and to sigmoid(1).
    rises_by = torch.tensor([2.0, 1.0]).sigmoid() - 0.5
    for weight, expected in (
        (None, rises_by.mean()),
        ([3.0, 1], (3 * rises_by[0] + rises_by[1]) / 4),
    ):
        step.weight = None if weight is None else torch.tensor(weight)
        found = balancer.method.losses({"joint": torch.zeros(())}, step)["calibration"]
        torch.testing.assert_close(found, factor * expected)


def test_a_silent_modality_gives_no_hinge() -> None:
    nothing = torch.zeros(2, 2)
    with_hinge = late_fusion(nothing, nothing, 2, chain_loss=False, weight=5.0)
    assert float(with_hinge({"audio": nothing, "video": nothing}, Y).detach()) == pytest.approx(
        float(F.cross_entropy(nothing, Y)), abs=1e-7
    )


def test_wrong_on_both_lowers_the_poorer_confidence_only() -> None:
    larger, smaller = (torch.tensor([[0.0, 1, 0]], requires_grad=True) for _ in range(2))
    method = CML(selection="larger_correct", lower_wrong=True)
    wrong = torch.zeros(1)
    method._term(largest(larger), largest(2 * smaller), wrong, wrong).sum().backward()
    assert larger.grad is None or torch.equal(larger.grad, torch.zeros(1, 3))
    assert smaller.grad is not None
    assert float(smaller.grad[0, 1]) > 0


def test_outside_its_epochs_it_is_joint_training() -> None:
    balancer = late_fusion(AUDIO, VIDEO, 2, starts=1)
    expected = F.cross_entropy(AUDIO + VIDEO, Y)
    torch.testing.assert_close(balancer({"audio": AUDIO, "video": VIDEO}, Y), expected)


def test_three_modalities_make_a_chain_of_three() -> None:
    names = ("a", "b", "c")
    model = ev.Multimodal({m: nn.Linear(3, 4) for m in names}, ev.Sum(dict.fromkeys(names, 4), 3))
    sizes: list[int] = []
    fuse = model.fuse

    def spy(features: dict[str, Tensor], keep: Tensor) -> Tensor:
        sizes.extend(keep.sum(1).tolist())
        return fuse(features, keep)

    model.fuse = spy  # type: ignore[method-assign, assignment]
    balancer = ev.Balancer(model, CML(), task=ev.Classification())
    balancer({m: torch.randn(5, 3) for m in names}, torch.tensor([0, 1, 2, 0, 1])).backward()
    assert sizes == [2] * 5 + [1] * 5


@pytest.mark.parametrize(
    "options", [{"weight": -1.0}, {"selection": "some"}, {"reduction": "max"}, {"margin": -0.1}]
)
def test_bad_arguments_are_refused(options: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match="should be"):
        CML(**options)  # type: ignore[arg-type]


def test_regression_is_refused() -> None:
    model = ev.Multimodal({"a": nn.Linear(3, 4)}, ev.Concat({"a": 4}, 1))
    with pytest.raises(ValueError, match="is defined for"):
        ev.Balancer(model, CML(), task=ev.Regression())


def test_what_a_sample_lacks_is_removed_first() -> None:
    problem = Problem(modalities=3)
    balancer = problem.balancer(CML())
    inputs, target, _ = next(iter(problem.loader()))
    there = torch.arange(len(target)) % 2 == 0
    seen: list[Tensor] = []
    fuse = balancer.model.fuse

    def noted(features: Any, keep: Any) -> Tensor:
        seen.append(keep)
        return fuse(features, keep)

    balancer.model.fuse = noted  # type: ignore[method-assign]
    balancer({**inputs, "present": {"video": there}}, target)
    column = balancer.model.modalities.index("video")
    assert not seen[0][~there, column].any()
    assert bool((seen[0][~there].sum(1) == 2).all())
