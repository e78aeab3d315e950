"""Linear probes: what a linear classifier can read from frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def linear_probe(
    train_features: Float[Tensor, "train features"],
    train_target: Float[Tensor, " train *outputs"] | Int[Tensor, " train"],
    test_features: Float[Tensor, "test features"],
    classes: int | None = None,
    ridge: float = 1e-3,
) -> Float[Tensor, " test *outputs"]:
    """Fit ridge regression in closed form and return its predictions, in float64.

    Features are standardised by the training set; the fit minimises
    mean |y - x W - b|^2 + ridge |W|^2, with b unpenalised.

    :param train_target: Class numbers (train,), regressed as one-hot rows, if `classes` is given;
        otherwise the values (train,) or (train, outputs) themselves.
    :param classes: The number of classes, or `None` for regression.
    :param ridge: The penalty, in units of the features' variance.
    :returns: Logits (test, classes), whose largest is the predicted class, or predictions.

    >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> linear_probe(x, y, torch.tensor([[-3.0], [3.0]]), classes=2).argmax(1)
    tensor([0, 1])
    """
    train, test = _standardised(train_features, test_features)
    target = train_target if classes is None else F.one_hot(train_target, classes)
    y = target.double()
    penalty = ridge * len(train) * torch.eye(train.shape[1], dtype=y.dtype, device=y.device)
    weight: Tensor = torch.linalg.solve(train.T @ train + penalty, train.T @ (y - y.mean(0)))
    return test @ weight + y.mean(0)


def logistic_probe(
    train_features: Float[Tensor, "train features"],
    train_target: Int[Tensor, " train"],
    test_features: Float[Tensor, "test features"],
    classes: int,
    penalty: float = 1.0,
    iterations: int = 100,
) -> Float[Tensor, "test classes"]:
    """Fit multinomial logistic regression and return its logits, in float64.

    Features are standardised by the training set; L-BFGS, started from zero and hence
    deterministic, minimises sum CE(x W + b, y) + penalty / 2 |W|^2, with b unpenalised: the model
    of scikit-learn's `LogisticRegression(C=1 / penalty)`.

    :param iterations: The largest number of L-BFGS iterations.

    >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> logistic_probe(x, y, torch.tensor([[-3.0], [3.0]]), classes=2).argmax(1)
    tensor([0, 1])
    """
    with torch.inference_mode(False), torch.enable_grad():
        train, test = _standardised(train_features, test_features)
        target = train_target.clone()  # one made in inference mode could not be differentiated past
        weight = train.new_zeros(train.shape[1], classes, requires_grad=True)
        bias = train.new_zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=iterations,
            tolerance_grad=1e-5,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            optimizer.zero_grad()
            fit = F.cross_entropy(train @ weight + bias, target)
            loss = fit + penalty / 2 / len(train) * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(objective)
    return (test @ weight + bias).detach()


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    train, test = train.detach().double(), test.detach().double()
    mean, std = train.mean(0), train.std(0, correction=0)
    std = torch.where(std > 1e-12 * mean.abs(), std, 1.0)  # a constant feature stays zero
    return (train - mean) / std, (test - mean) / std
