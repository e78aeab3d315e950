"""MBSD: the worked numbers, who teaches, and what is a constant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.functional.distillation import Opinion, distillation_weight
from equivox.method import Batch
from equivox.methods.objective.mbsd import MBSD
from equivox.step import Step

AUDIO = torch.tensor([[2.0, 0, 0], [0, 1.5, 0]])
VIDEO = torch.tensor([[0.5, 0, 0], [0, 0, 0.2]])
Y = torch.tensor([0, 1])


class Given(nn.Module):
    """A fusion of which the features are the logits."""

    outputs = 3

    def __init__(self, names: tuple[str, ...], width: int = 3) -> None:
        super().__init__()
        self.widths = dict.fromkeys(names, width)

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(features)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(features.values())).sum(0)


def losses(
    logits: dict[str, Tensor],
    target: Tensor = Y,
    task: Any = None,
    weight: Tensor | None = None,
    **options: Any,
) -> Any:
    """All losses of the method, with the logits and the samples' weights given."""
    task = task or ev.Classification()
    model = ev.Multimodal({m: nn.Identity() for m in logits}, Given(tuple(logits)))
    method = MBSD(**options)
    step = Step(model, task, Batch(logits, target), 0, torch.Generator())
    step.output = model(logits)
    step.weight = weight
    return method.losses({"joint": step.loss(step.output.logits)}, step)


def test_worked_example() -> None:
    found = losses({"audio": AUDIO, "video": VIDEO})
    expected = {
        "joint": 0.277289,
        "audio": 0.304263,
        "video": 0.982097,
        "distillation": 0.097941,
        "representation": 0.271092,
    }
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, abs=2e-6)
    assert float(sum(found.values())) == pytest.approx(1.932681, abs=2e-6)


def test_benchmark_numbers() -> None:
    found = losses({"audio": AUDIO, "video": VIDEO}, benchmark_compat=True)
    assert float(found["distillation"]) == pytest.approx(-0.229804, abs=2e-6)
    assert float(sum(found.values())) == pytest.approx(1.604937, abs=2e-6)


@pytest.mark.parametrize("benchmark_compat", [False, True])
def test_a_sample_of_weight_two_is_there_twice(benchmark_compat: bool) -> None:
    given, twice = {"audio": AUDIO, "video": VIDEO}, torch.tensor([0, 0, 1])
    weight = torch.tensor([2.0, 1])
    found = losses(given, weight=weight, benchmark_compat=benchmark_compat)
    repeated = {m: z[twice] for m, z in given.items()}
    expected = losses(repeated, Y[twice], benchmark_compat=benchmark_compat)
    for term, value in expected.items():
        torch.testing.assert_close(found[term], value)


def test_names_do_not_matter() -> None:
    one = sum(losses({"audio": AUDIO, "video": VIDEO}).values())
    other = sum(losses({"audio": VIDEO, "video": AUDIO}).values())
    torch.testing.assert_close(one, other)


def test_equal_modalities_teach_nothing() -> None:
    found = losses({"audio": AUDIO, "video": AUDIO})
    assert float(found["distillation"]) == float(found["representation"]) == 0


def test_no_teacher_where_all_are_wrong() -> None:
    found = losses({"audio": AUDIO, "video": VIDEO}, target=torch.tensor([2, 0]))
    assert float(found["distillation"]) == float(found["representation"]) == 0


def opinion(truth: list[float], right: list[bool]) -> Opinion:
    return Opinion(torch.tensor(truth), torch.tensor(right), None, torch.zeros(2, 1))


def test_worked_weights() -> None:
    a = opinion([0.786986, 0.691438], [True, True])
    b = opinion([0.451863, 0.310424], [True, False])
    expected = torch.tensor([0.335123, 0.381014])
    torch.testing.assert_close(distillation_weight(a, b), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("detach", "moves"), [(True, False), (False, True)])
def test_the_teacher_is_a_constant(detach: bool, moves: bool) -> None:
    audio, video = AUDIO.clone().requires_grad_(), VIDEO.clone().requires_grad_()
    found = losses({"audio": audio, "video": video}, detach_teacher=detach)
    (found["distillation"] + found["representation"]).backward()
    assert audio.grad is not None
    assert video.grad is not None
    assert bool((audio.grad != 0).any()) is moves
    assert bool((video.grad != 0).any())


def test_worked_features() -> None:
    known = torch.tensor([0.9, 0.8]), torch.tensor([0.4, 0.6])
    f = torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([[0.0, 0], [1, 1]])
    right = torch.tensor([True, True])
    a, b = (Opinion(t, right, None, r) for t, r in zip(known, f, strict=True))
    rows = MBSD(rs_on="features")._rs(a, b) / distillation_weight(a, b)
    torch.testing.assert_close(rows, torch.tensor([0.5, 1.0]))


def test_compared_features_should_be_equally_wide() -> None:
    widths = {"a": 4, "b": 5}
    model = ev.Multimodal({m: nn.Linear(3, w) for m, w in widths.items()}, ev.Concat(widths, 3))
    with pytest.raises(ValueError, match="equally wide"):
        ev.Balancer(model, MBSD(rs_on="features"), task=ev.Classification())


def test_three_modalities_average_over_the_pairs() -> None:
    third = torch.tensor([[0.0, 1, 0], [0.3, 0.1, 0]])
    every = {"a": AUDIO, "b": VIDEO, "c": third}
    found = losses(every)
    pairs = [losses({m: z for m, z in every.items() if m != out}) for out in every]
    for term in ("distillation", "representation"):
        expected = torch.stack([pair[term] for pair in pairs]).mean()
        torch.testing.assert_close(found[term], expected)


def test_temperature_changes_only_the_divergence() -> None:
    cold = losses({"audio": AUDIO, "video": VIDEO})
    hot = losses({"audio": AUDIO, "video": VIDEO}, temperature=3.0)
    assert {k for k in cold if not torch.equal(cold[k], hot[k])} == {"distillation"}


def test_labels_are_distilled_one_by_one() -> None:
    y = torch.tensor([[1, 0, 0], [0, 1, 1]])
    found = losses({"audio": AUDIO, "video": VIDEO}, y, ev.MultiLabel())
    one = [
        losses(
            {"audio": AUDIO[:, i : i + 1], "video": VIDEO[:, i : i + 1]},
            y[:, i : i + 1],
            ev.MultiLabel(),
        )
        for i in range(3)
    ]
    for term in ("distillation", "representation"):
        torch.testing.assert_close(found[term], torch.stack([o[term] for o in one]).mean())


def test_regression_by_hand() -> None:
    said = {"audio": torch.tensor([[1.0], [0.0]]), "video": torch.tensor([[3.0], [0.5]])}
    found = losses(said, torch.tensor([[1.0], [1.0]]), ev.Regression())
    weight = [1 - torch.e**-2, torch.e**-0.5 - torch.e**-1]
    expected = (weight[0] * 4 + weight[1] * 0.25) / 2
    assert float(found["representation"]) == pytest.approx(expected, abs=1e-6)
    assert float(found["distillation"]) == 0


def test_ignored_positions_teach_nothing() -> None:
    wide = {"audio": AUDIO.unsqueeze(-1), "video": VIDEO.unsqueeze(-1)}
    padded = {m: torch.cat([z, 7 * torch.ones_like(z)], -1) for m, z in wide.items()}
    target = torch.stack([Y, torch.full_like(Y, 255)], 1)
    found = losses(padded, target, ev.Dense())
    for term, value in losses({"audio": AUDIO, "video": VIDEO}).items():
        torch.testing.assert_close(found[term], value)


@pytest.mark.parametrize("options", [{"unimodal": -1.0}, {"temperature": 0.0}, {"rs_on": "logit"}])
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="should be"):
        MBSD(**options)
