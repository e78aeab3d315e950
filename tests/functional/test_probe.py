"""Linear probes against scikit-learn, and what must not change them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from equivox.functional import linear_probe, logistic_probe

CLASSES = 5
Split = tuple[Tensor, Tensor, Tensor, Tensor]
Probe = Callable[..., Tensor]


def blobs(
    seed: int, distance: float, *, train: int = 400, test: int = 600, features: int = 12
) -> Split:
    """Gaussian classes seen through a linear map with unequal scales, with one constant feature."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, CLASSES, (train + test,), generator=generator)
    z = torch.randn(train + test, features, generator=generator)
    z[torch.arange(len(z)), target] += distance
    scales = torch.logspace(-0.7, 0.7, features)
    mixing = torch.randn(features, features, generator=generator)
    x = torch.cat([(z * scales) @ mixing + 5, torch.full((len(z), 1), 3.0)], dim=1)
    return x[:train], target[:train], x[train:], target[train:]


def accuracy(logits: Tensor, target: Tensor) -> float:
    return float((logits.argmax(1) == target).double().mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_logistic_probe_agrees_with_scikit_learn(seed: int, distance: float) -> None:
    train, train_target, test, test_target = blobs(seed, distance)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-8))
    oracle.fit(train.double().numpy(), train_target.numpy())
    expected = oracle.score(test.double().numpy(), test_target.numpy())
    logits = logistic_probe(train, train_target, test, CLASSES)
    assert accuracy(logits, test_target) == pytest.approx(expected, abs=0.01)


def test_logistic_probe_has_scikit_learn_probabilities() -> None:
    train, train_target, test, _ = blobs(0, 2.0)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000, tol=1e-8))
    oracle.fit(train.double().numpy(), train_target.numpy())
    logits = logistic_probe(train, train_target, test, CLASSES, penalty=10.0)
    expected = torch.from_numpy(oracle.predict_proba(test.double().numpy()))
    torch.testing.assert_close(logits.softmax(1), expected, rtol=0, atol=1e-3)


def test_linear_probe_is_ridge_regression() -> None:
    train, train_target, test, _ = blobs(1, 2.0)
    one_hot = torch.nn.functional.one_hot(train_target, CLASSES).double()
    oracle = make_pipeline(StandardScaler(), Ridge(alpha=0.05 * len(train), solver="svd"))
    oracle.fit(train.double().numpy(), one_hot.numpy())
    expected = torch.from_numpy(oracle.predict(test.double().numpy()))
    logits = linear_probe(train, train_target, test, CLASSES, ridge=0.05)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


def test_linear_probe_is_close_to_the_logistic_one() -> None:
    train, train_target, test, test_target = blobs(2, 3.0)
    linear = accuracy(linear_probe(train, train_target, test, CLASSES), test_target)
    logits = logistic_probe(train, train_target, test, CLASSES, penalty=0.1)
    logistic = accuracy(logits, test_target)
    assert logistic > 0.75
    assert linear == pytest.approx(logistic, abs=0.03)


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_linear_probe_predicts_regression_targets(outputs: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 4, generator=generator)
    y = 3 + x @ torch.randn(4, *outputs, generator=generator)
    predicted = linear_probe(x[:50], y[:50], x[50:], ridge=1e-9)
    assert predicted.shape == (30, *outputs)
    torch.testing.assert_close(predicted, y[50:].double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("probe", [linear_probe, logistic_probe])
class TestBothProbes:
    def test_units_of_the_features_do_not_matter(self, probe: Probe) -> None:
        train, train_target, test, _ = blobs(3, 2.0)
        units, origin = torch.logspace(-3, 3, train.shape[1]).double(), 7.0
        expected = probe(train.double(), train_target, test.double(), CLASSES)
        found = probe(train * units + origin, train_target, test * units + origin, CLASSES)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    def test_repeats_itself_and_leaves_no_trace(self, probe: Probe) -> None:
        train, train_target, test, _ = blobs(4, 2.0)
        train.requires_grad_()
        state = torch.get_rng_state()
        first = probe(train, train_target, test, CLASSES)
        assert torch.equal(first, probe(train, train_target, test, CLASSES))
        assert first.dtype == torch.float64
        assert not first.requires_grad
        assert train.grad is None
        assert torch.equal(torch.get_rng_state(), state)

    def test_runs_without_gradients_and_in_inference_mode(self, probe: Probe) -> None:
        train, train_target, test, _ = blobs(5, 2.0, train=60, test=20)
        expected = probe(train, train_target, test, CLASSES)
        with torch.no_grad():
            assert torch.equal(probe(train, train_target, test, CLASSES), expected)
        with torch.inference_mode():
            inside = [tensor.double().clone() for tensor in (train, test)]
            found = probe(inside[0], train_target.clone(), inside[1], CLASSES)
        torch.testing.assert_close(found.clone(), expected)

    def test_more_features_than_samples(self, probe: Probe) -> None:
        train, train_target, test, test_target = blobs(6, 6.0, train=30, features=60)
        logits = probe(train, train_target, test, CLASSES)
        assert bool(logits.isfinite().all())
        assert accuracy(logits, test_target) > 1 / CLASSES

    def test_a_class_without_samples(self, probe: Probe) -> None:
        train, train_target, test, _ = blobs(7, 3.0)
        logits = probe(train, train_target, test, CLASSES + 1)
        assert logits.shape == (len(test), CLASSES + 1)
        assert bool((logits.argmax(1) < CLASSES).all())
