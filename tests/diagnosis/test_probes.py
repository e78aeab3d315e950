from __future__ import annotations

import pytest
import torch

from equivox.diagnosis.known_metrics import metrics_of
from equivox.diagnosis.probes import Probe, Split, probe, probes, read_both
from equivox.task import Classification, Dense, MultiLabel, Regression

G = torch.Generator().manual_seed(0)
X = torch.randn(400, 3, generator=G)
NOISE = torch.randn(400, 3, generator=G)
LABEL = (X[:, 0] > 0).long()


def halves(features: torch.Tensor, target: torch.Tensor) -> tuple[Split, Split]:
    return Split(features[:200], target[:200]), Split(features[200:], target[200:])


def test_what_is_linear_is_found_and_noise_is_not() -> None:
    task = Classification(2)
    assert float(probe(task, *halves(X, LABEL)).mean()) > 0.97
    assert float(probe(task, *halves(NOISE, LABEL)).mean()) == pytest.approx(0.5, abs=0.12)


def both(task: Classification, joint: torch.Tensor, alone: torch.Tensor) -> Probe:
    read = read_both(task, {"m": halves(joint, LABEL)}, {"m": halves(alone, LABEL)})
    return probes(task, read, LABEL[200:])["m"]


def test_every_metric_tells_noise_from_what_is_linear() -> None:
    labels = torch.stack([X[:, 0] > 0, X[:, 1] > 0], 1).float()
    number = X @ torch.tensor([[1.0], [2.0], [0.0]])
    known = [(Classification(2), LABEL), (MultiLabel(2), labels), (Regression(), number)]
    for task, target in known:
        read = read_both(task, {"m": halves(NOISE, target)}, {"m": halves(X, target)})
        for metric in metrics_of(task).values():
            assert probes(task, read, target[200:], metric)["m"].gap.low > 0, metric.name


def test_the_gap_is_alone_minus_joint() -> None:
    task = Classification()  # the number of classes is read from the target
    found = both(task, NOISE, X)
    assert found.gap.value == pytest.approx(found.alone.value - found.joint.value)
    assert found.gap.low > 0.3
    same = both(task, X, X)
    assert (same.gap.value, same.gap.low, same.gap.high) == (0, 0, 0)


def test_scale_and_shift_of_features_do_not_matter() -> None:
    one = probe(Classification(2), *halves(X, LABEL))
    other = probe(Classification(2), *halves(X * 100 - 7, LABEL))
    assert torch.equal(one, other)


def test_distributions_are_probed_by_their_largest_class() -> None:
    soft = torch.nn.functional.one_hot(LABEL, 2).float()
    assert torch.equal(
        probe(Classification(2), *halves(X, soft)), probe(Classification(2), *halves(X, LABEL))
    )


def test_labels_and_numbers() -> None:
    labels = torch.stack([X[:, 0] > 0, X[:, 1] > 0], 1).float()
    assert float(probe(MultiLabel(2), *halves(X, labels)).mean()) > 0.9
    number = X @ torch.tensor([[1.0], [2.0], [0.0]]) + 3
    for target in (number, number[:, 0]):
        assert float(probe(Regression(), *halves(X, target)).mean()) == pytest.approx(1, abs=1e-3)


def test_dense_has_no_probe() -> None:
    with pytest.raises(ValueError, match="one vector a sample"):
        probe(Dense(2), *halves(X, LABEL))
