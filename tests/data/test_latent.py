"""Latent modalities: their ceilings are those that the best classifier reaches."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox import data
from equivox.data import LatentModality, MultimodalData, Samples
from equivox.data.latent import bayes_accuracy, shift_of

PLAIN = {"a": LatentModality(0.8, dim=9), "b": LatentModality(0.7), "c": LatentModality(None)}


def test_shifts_of_the_specification() -> None:
    assert shift_of(0.95, classes=6) == pytest.approx(3.159, abs=5e-4)
    assert shift_of(0.90, classes=6) == pytest.approx(2.710, abs=5e-4)


def test_the_accuracy_of_two_classes_has_a_closed_form() -> None:
    for shift in (0.0, 0.5, 3.0):  # Φ(s / √2)
        expected = torch.special.ndtr(torch.tensor(shift / 2**0.5, dtype=torch.float64))
        assert bayes_accuracy(shift, classes=2) == pytest.approx(expected.item(), abs=1e-12)


def test_the_joint_ceilings_of_the_specification() -> None:
    assert data.load("latent2").ceilings["easy", "hard"] == pytest.approx(0.993, abs=5e-4)
    three = data.load("latent3")
    assert three.ceilings["easy", "hard", "weak"] == pytest.approx(0.997, abs=5e-4)
    assert len(three.ceilings) == 7


@pytest.mark.parametrize("classes", [2, 5])
def test_a_classifier_that_knows_enough_reaches_every_ceiling(classes: int) -> None:
    made = data.load("latent", modalities=PLAIN, classes=classes, samples=100_000)
    assert made.ceilings["c",] == pytest.approx(1 / classes)
    for subset, ceiling in made.ceilings.items():
        assert _linear_accuracy(made, subset) == pytest.approx(ceiling, abs=0.008)


def test_regression_reaches_every_ceiling() -> None:
    made = data.load("latent_regression", modalities=PLAIN, samples=100_000)
    assert made.ceilings["a", "b"] == pytest.approx((4 + 7 / 3) / (5 + 7 / 3))
    for subset, ceiling in made.ceilings.items():
        said = _least_squares(made, subset, made.train.target)
        error = (said - made.test.target).square().mean() / made.test.target.var()
        assert 1 - error.item() == pytest.approx(ceiling, abs=0.008)


def test_warps_keep_the_order_of_a_coordinate() -> None:
    """Undone by hand: rotations keep lengths, and the standardised power is monotone."""
    straight, warped = (
        data.load("latent", modalities={"m": LatentModality(0.9, depth=d, power=3.0)})
        for d in (0, 1)
    )
    once = straight.train.inputs["m"]
    cubed = once.abs() ** 3 * once.sign()
    standard = (cubed - cubed.mean(0)) / cubed.std(0)
    seen = warped.train.inputs["m"]
    rotation = torch.linalg.lstsq(standard, seen).solution
    assert torch.allclose(standard @ rotation, seen, atol=1e-3)
    assert torch.allclose(rotation @ rotation.T, torch.eye(12), atol=1e-3)


def test_more_modalities_leave_the_first_ones_alone() -> None:
    two, three = data.load("latent2"), data.load("latent3")
    for modality in two.modalities:
        assert torch.equal(two.train.inputs[modality], three.train.inputs[modality])


def test_a_copy_adds_nothing() -> None:
    made = data.load("redundant", samples=20_000)
    assert set(made.ceilings.values()) == {0.95}
    original, copy = made.train.inputs.values()
    turn = torch.linalg.lstsq(original, copy).solution
    assert torch.allclose(original @ turn, copy, atol=1e-3)
    assert not torch.allclose(original, copy, atol=1.0)


@pytest.mark.parametrize("count", [2, 3])
def test_parity_is_in_no_part_but_in_the_whole(count: int) -> None:
    made = data.load("xor", modalities=count, samples=40_000)
    whole = made.modalities
    assert made.ceilings[whole] == pytest.approx((1 + 0.9**count) / 2)
    assert _linear_accuracy(made, whole) == pytest.approx(0.5, abs=0.02)
    # The leading direction of each modality separates its bit, up to a sign.
    sides = [_leading(made.test.inputs[m]) for m in whole]
    right = (torch.stack(sides).prod(0) > 0) == (made.test.target > 0)
    found = right.float().mean().item()
    assert max(found, 1 - found) == pytest.approx(made.ceilings[whole], abs=0.02)


def test_joint_training_neglects_the_hard_modality_of_latent2() -> None:
    made = data.load("latent2")
    alone = torch.tensor([_trained_probe(made, ("hard",), seed) for seed in range(3)])
    joint = torch.tensor([_trained_probe(made, made.modalities, seed) for seed in range(3)])
    assert (alone - joint).mean() >= 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "two classes"),
        ({"samples": 10}, "20 samples"),
        ({"modalities": {}}, "a modality"),
        ({"classes": 13}, "`dim` should be at least the number of classes"),
        ({"modalities": {"m": {"ceiling": 0.1}}}, "between chance \\(0.167\\) and 1"),
        ({"modalities": [{"ceiling": 1.0}]}, "`ceiling = 1.0` of `m1`"),
        ({"modalities": [{"ceiling": 0.9, "scale": 0.0}]}, "`scale = 0.0`"),
    ],
)
def test_impossible_data_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load("latent", **options)


def _joined(samples: Samples, modalities: tuple[str, ...]) -> Tensor:
    return torch.cat([*(samples.inputs[m] for m in modalities), torch.ones(len(samples), 1)], 1)


def _least_squares(made: MultimodalData, modalities: tuple[str, ...], target: Tensor) -> Tensor:
    weights = torch.linalg.lstsq(_joined(made.train, modalities), target).solution
    return _joined(made.test, modalities) @ weights


def _linear_accuracy(made: MultimodalData, modalities: tuple[str, ...]) -> float:
    """Equal covariances: a linear rule is optimal, and least squares finds it."""
    target = F.one_hot(made.train.target, made.outputs).float()
    said = _least_squares(made, modalities, target).argmax(1)
    return (said == made.test.target).float().mean().item()


def _leading(x: Tensor) -> Tensor:
    return (x - x.mean(0)) @ torch.linalg.eigh(torch.cov(x.T)).eigenvectors[:, -1]


def _trained_probe(made: MultimodalData, modalities: tuple[str, ...], seed: int) -> float:
    """Train by the recipe; then the test accuracy of a linear rule on the hard features."""
    torch.manual_seed(seed)
    encoders = made.encoders()
    head = nn.Linear(sum(made.widths[m] for m in modalities), made.outputs)
    parameters = [p for m in [*(encoders[m] for m in modalities), head] for p in m.parameters()]
    recipe = made.recipe
    optimizer = torch.optim.SGD(
        parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    for _ in range(recipe.epochs):
        for inputs, target, _ in made.loader("train"):
            features = torch.cat([encoders[m](inputs[m]) for m in modalities], 1)
            F.cross_entropy(head(features), target).backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        train, test = (
            F.pad(encoders["hard"](part.inputs["hard"]), (0, 1), value=1.0)
            for part in (made.train, made.test)
        )
        ridge = train.T @ train + 1e-3 * torch.eye(train.shape[1])
        weights = torch.linalg.solve(ridge, train.T @ F.one_hot(made.train.target).float())
        return ((test @ weights).argmax(1) == made.test.target).float().mean().item()
