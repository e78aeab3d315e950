"""Ensemble: averaging, temperatures and weights."""

from __future__ import annotations

import pytest
import torch

from equivox import Classification, MultiLabel, Regression
from equivox.methods.yardstick.ensemble import (
    Ensemble,
    best_temperature,
    best_weights,
    mean_prediction,
)
from equivox.testing.problem import Problem, sgd, steps

TASK = Classification()


def drawn(samples: int, classes: int, scale: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels that follow their softmax at temperature `scale`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    labels = torch.multinomial((logits).softmax(-1), 1, generator=generator).squeeze(1)
    return scale * logits, labels


def test_by_hand() -> None:
    said = {"a": torch.tensor([[2.0, 0, 0]]), "v": torch.tensor([[0, 3.0, 0]])}
    found = mean_prediction(TASK, said, torch.ones(2)).softmax(-1)
    torch.testing.assert_close(found, torch.tensor([[0.416132, 0.507975, 0.075893]]))


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = drawn(20_000, 4, scale, seed=0)
    assert best_temperature(TASK, logits, labels).item() == pytest.approx(scale, rel=0.05)


def test_a_perfect_head_has_a_finite_temperature() -> None:
    logits = 5 * torch.eye(3)
    temperature = best_temperature(TASK, logits, torch.arange(3))
    assert temperature.isfinite()
    assert temperature >= 0.05 - 1e-6


def test_noise_gets_no_more_weight_than_helps() -> None:
    good, labels = drawn(2_000, 4, 1.0, seed=0)
    noise, _ = drawn(2_000, 4, 1.0, seed=1)
    weights = best_weights(TASK, {"noise": noise, "good": good}, labels, torch.ones(2))
    assert weights[1] > 0.75
    assert weights.sum().item() == pytest.approx(1)


def test_the_weights_are_never_worse_than_uniform_or_one_modality() -> None:
    truth = torch.randint(3, (200,), generator=torch.Generator().manual_seed(0))
    said = {m: drawn(200, 3, 1.0, seed=i)[0] for i, m in enumerate("abc")}
    weights = best_weights(TASK, said, truth, torch.ones(3))

    def right(w: torch.Tensor) -> float:
        return TASK.correct(mean_prediction(TASK, said, w), truth).mean().item()

    assert all(right(weights) >= right(w) for w in (torch.ones(3), *torch.eye(3)))


def test_weights_follow_the_order_of_the_modalities() -> None:
    good, labels = drawn(500, 4, 1.0, seed=0)
    noise, _ = drawn(500, 4, 1.0, seed=1)
    one = best_weights(TASK, {"a": good, "b": noise}, labels, torch.ones(2))
    other = best_weights(TASK, {"b": noise, "a": good}, labels, torch.ones(2))
    torch.testing.assert_close(one, other.flip(0))


def test_regression_averages_predictions_without_temperature() -> None:
    task = Regression()
    said = {"a": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([[3.0], [6.0]])}
    torch.testing.assert_close(
        mean_prediction(task, said, torch.tensor([3.0, 1.0])), torch.tensor([[1.5], [3.0]])
    )
    assert best_temperature(task, said["a"], torch.zeros(2, 1)) == 1
    target = torch.tensor([[2.0], [4.0]])
    torch.testing.assert_close(
        best_weights(task, said, target, torch.ones(2)), torch.tensor([0.5, 0.5])
    )


def test_multi_label_averages_each_probability() -> None:
    task = MultiLabel()
    said = {"a": torch.tensor([[0.0, 2.0]]), "b": torch.tensor([[1.0, -1.0]])}
    found = mean_prediction(task, said, torch.ones(2)).sigmoid()
    torch.testing.assert_close(found, (said["a"].sigmoid() + said["b"].sigmoid()) / 2)


@pytest.mark.parametrize("task", ["Classification", "MultiLabel", "Regression"])
def test_it_predicts_the_weighted_mean_also_without_a_modality(task: str) -> None:
    problem = Problem(modalities=3, task=task)
    balancer = problem.balancer(Ensemble())
    for _ in steps(balancer, sgd(balancer), problem.loader(), epochs=1):
        pass
    method = balancer.method
    method.weights.copy_(torch.tensor([0.2, 0.3, 0.5]))
    inputs = dict(next(iter(balancer.validation))[0])
    del inputs["video"]
    inputs["present"] = {"video": False}
    said = balancer.model.eval()(inputs).unimodal
    t = method.temperatures
    parts = [balancer.task.probabilities(said[m] / t[i]) for i, m in ((0, "audio"), (2, "text"))]
    expected = (0.2 * parts[0] + 0.5 * parts[1]) / 0.7
    found = balancer.task.probabilities(balancer.predict(inputs))
    torch.testing.assert_close(found, expected)


def test_somebody_answers_where_all_weights_are_zero() -> None:
    said = {"b": torch.tensor([[2.0, 0.0]])}
    found = mean_prediction(Classification(), said, torch.zeros(1))
    torch.testing.assert_close(found.softmax(-1), said["b"].softmax(-1))
