"""MSLR and ATF: the worked examples, identities with joint and multi-loss training."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from equivox import Joint, Method
from equivox.functional.gradients import flat_cosine
from equivox.functional.learning_rates import dynamic_factors, lag, tracking_factors
from equivox.methods.optimization.mslr import MSLR
from equivox.methods.yardstick.unimodal_losses import UnimodalLosses
from equivox.modules.tracking import Tracker
from equivox.testing import CHECKS, Problem, check_method
from equivox.testing.problem import sgd, state, steps


class Tracking(MSLR):
    """The tracking factor, as a method of its own for the conformance suite."""

    neutral: ClassVar[Any] = {"gamma": 0.0, "eta": 0.0, "kappa": 0.0}
    brief: ClassVar[Any] = {"mode": "atf", "warmup": 0, "eta": 0.1}


LOCAL = [c for c in CHECKS if "two_ranks" not in c and c not in ("equals_compiled", "builds")]


@pytest.mark.parametrize("check", LOCAL)
def test_tracking_conforms(check: str) -> None:
    check_method(Tracking, only=[check])


def trained(method: Method, optimizer: str = "sgd", epochs: int = 3, **options: Any) -> Any:
    problem = Problem(**options)
    balancer = problem.balancer(method)
    if optimizer == "sgd":
        moves = sgd(balancer, momentum=0.0, weight_decay=0.0)
    elif optimizer == "momentum":
        moves = sgd(balancer)
    else:
        moves = balancer.attach(torch.optim.Adam(balancer.parameters(), lr=0.01))
    torch.manual_seed(0)
    for _ in steps(balancer, moves, problem.loader(), epochs):
        pass
    return balancer


def weights(balancer: Any) -> dict[str, Tensor]:
    return {k: v for k, v in state(balancer).items() if k.startswith("model.")}


def test_lag_by_hand() -> None:
    rho = lag(torch.tensor([0.5, 0.9, 0.7]), torch.ones(3))
    torch.testing.assert_close(rho, torch.tensor([0.714286, 1.285714, 1]), atol=1e-6, rtol=0)


def test_tracking_keeps_the_order_of_many_parameters() -> None:
    """By name "10" comes before "2"; equal gradients in a row have the cosine one."""
    encoder = [nn.Parameter(torch.ones(size)) for size in range(1, 13)]
    for p in encoder:
        p.grad = torch.randn_like(p)
    tracker = Tracker({"a": encoder}, eta=0.1, kappa=0.5, beta=0.9, bounds=(0.1, 10.0))
    for _ in range(2):
        tracker.track_(torch.ones(1), {"a": torch.tensor(0.7)}, {"a": encoder}, moves=True)
    torch.testing.assert_close(tracker._cosine("a", encoder), torch.tensor(1.0))


def test_tracking_factors_by_hand() -> None:
    factors, h = torch.tensor([1, 1.2, 0.8]), torch.tensor([0.5, -0.5, 0])
    rho = torch.tensor([0.714286, 1.285714, 1])
    found = tracking_factors(factors, h, rho, eta=0.1, kappa=0.5)
    expected = torch.tensor([0.893610, 1.301776, 0.804614])
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert found.sum().item() == pytest.approx(3)


def test_cosine_by_hand() -> None:
    found = flat_cosine([torch.tensor([1.0, 0])], [torch.tensor([1.0, 1])])
    assert found.item() == pytest.approx(0.707107)


def test_dynamic_factors_by_hand() -> None:
    history = torch.tensor([0.30, 0.35, 0.40, 0.42, 0.45])[:, None]
    assert dynamic_factors(torch.tensor([0.48]), history).item() == pytest.approx(1.25)
    assert dynamic_factors(torch.tensor([0.48]), torch.zeros(2, 1)).item() == 1


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_no_tracking_is_multi_loss_training(modalities: int, optimizer: str) -> None:
    method = MSLR(mode="atf", eta=0.0, kappa=0.0, warmup=0)
    found = weights(trained(method, optimizer, modalities=modalities))
    plain = weights(trained(UnimodalLosses(), optimizer, modalities=modalities))
    assert all(torch.equal(found[k], plain[k]) for k in plain)


def test_one_modality_keeps_its_rate() -> None:
    balancer = trained(MSLR(mode="atf", warmup=0, eta=1.0), modalities=1)
    assert balancer.method.rates.tolist() == [1.0]


def test_first_epochs_of_memory_are_joint_training() -> None:
    found, plain = weights(trained(MSLR(memory=3))), weights(trained(Joint()))
    assert all(torch.equal(found[k], plain[k]) for k in plain)


def test_memory_is_bounded_and_holds_scores() -> None:
    method = trained(MSLR(memory=2), epochs=4).method
    assert method.history.shape == (2, 2)
    assert ((method.history >= 0) & (method.history <= 1)).all()


@pytest.mark.parametrize("mode", ["keep", "atf"])
def test_rate_and_gradient_agree_under_plain_sgd(mode: str) -> None:
    own = {"factors": {"audio": 0.5, "video": 1.5}} if mode == "keep" else {"warmup": 0, "eta": 0.1}
    rate, gradient = (
        weights(trained(MSLR(mode=mode, acts_on=acts_on, **own))) for acts_on in ("lr", "grad")
    )
    for key, value in rate.items():
        torch.testing.assert_close(value, gradient[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_factor_is_a_rate_of_its_own(kind: str) -> None:
    from equivox.methods.yardstick.modality_lr import ModalityLR

    factors = {"audio": 0.5, "video": 2.0}
    optimizer = "momentum" if kind == "sgd" else kind
    found = weights(trained(MSLR(mode="keep", factors=factors), optimizer))
    plain = weights(trained(ModalityLR(factors=factors), optimizer))
    for key, value in plain.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)


def test_smooth_ends_at_the_common_rate() -> None:
    method = MSLR(mode="smooth", factors={"audio": 0.5}, epochs=3)
    for epochs, expected in ((1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0)):
        found = trained(MSLR(mode="smooth", factors=method.factors, epochs=3), epochs=epochs)
        assert found.method.rates.tolist() == pytest.approx([expected, 1.0])


def test_factors_stay_within_bounds() -> None:
    method = MSLR(mode="atf", warmup=0, eta=5.0, kappa=5.0, bounds=(0.5, 1.2))
    rates = trained(method).method.rates
    assert ((rates >= 0.5) & (rates <= 1.2)).all()


def test_warm_up_leaves_the_rates() -> None:
    method = trained(MSLR(mode="atf", warmup=3, eta=1.0)).method
    assert method.rates.tolist() == [1.0, 1.0]
    assert (method.tracker.ema > 0).all() and (method.tracker.reference == 0).all()


def test_validation_is_needed_by_the_dynamic_rule_alone() -> None:
    assert MSLR().needs_validation
    assert not MSLR(mode="atf").needs_validation


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "x"},
        {"acts_on": "x"},
        {"memory": 0},
        {"beta": 1.0},
        {"eta": -1.0},
        {"bounds": (2.0, 3.0)},
        {"factors": {"audio": 0.0}},
    ],
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="should"):
        MSLR(**arguments)


def test_unknown_modalities_are_refused() -> None:
    with pytest.raises(ValueError, match="by modality"):
        Problem().balancer(MSLR(mode="keep", factors={"smell": 1.0}))
