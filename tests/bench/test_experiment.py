"""Experiments: what they name, what they refuse, and that JSON gives them again."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from equivox import methods
from equivox.bench.experiment import Experiment
from equivox.method import Method


class Damped(Method):
    """A second method that has an `alpha`."""

    category = "optimization"

    def __init__(self, *, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta


@pytest.fixture
def damped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods._OWN, "damped", Damped)


def test_json_gives_it_again() -> None:
    experiment = Experiment(
        "latent2", "ogm_ge", 3, 2, {"samples": 600, "seed": 1}, {"alpha": 0.8}, 32, lr=0.1, clip=1.0
    )
    assert Experiment.from_json(json.loads(json.dumps(experiment.to_json()))) == experiment
    tuples = Experiment("hydraulic", data_options={"modalities": ("flow", "power")})
    assert Experiment.from_json(json.loads(json.dumps(tuples.to_json()))) == tuples


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"data": "latnt2"}, "Did you mean `latent2`"),
        ({"method": "ogm_gee"}, "Did you mean `ogm_ge`"),
        ({"method": "ogm_ge", "arguments": {"alhpa": 1}}, "Did you mean `alpha`"),
        ({"method": "joint", "arguments": {"alpha": 1}}, "Found `alpha`. It has none"),
        ({"method": "ogm_ge", "arguments": {"alpha": -1.0}}, "`alpha` should be zero or more"),
        ({"method": "ogm_ge+"}, "method should be a known one"),
        ({"method": "ogm_ge+ogm_ge"}, "hold a method once"),
        ({"optimizer": "sdg"}, "Did you mean `sgd`"),
        ({"optimizer": "adam"}, "`lr` should be given"),
        ({"optimizer": "adam", "lr": 1e-3, "momentum": 0.9}, "`momentum` is an argument of `sgd`"),
        ({"epochs": 0}, "`epochs` should be 1 or more"),
        ({"seed": -1}, "`seed` should be 0 or more"),
        ({"lr": 0.0}, "`lr` should be positive"),
        ({"lr": float("nan")}, "`lr` should be positive"),
        ({"weight_decay": -1.0}, "`weight_decay` should be zero or more"),
        ({"strategy": "dpp"}, "Did you mean `ddp`"),
        ({"precision": "fp16"}, "precision should be a known one"),
        ({"devices": 0}, "`devices` should be 1 or more"),
        ({"accumulate": 0}, "`accumulate` should be 1 or more"),
        ({"batch_size": 64, "accumulate": 3}, "multiple of 3"),
        ({"batch_size": 64, "devices": 2, "accumulate": 64}, "multiple of 128"),
        ({"patience": 0}, "`patience` should be 1 or more"),
        ({"warmup": -1}, "`warmup` should be 0 or more"),
        ({"schedule": "cosin"}, "Did you mean `cosine`"),
        ({"schedule": "step"}, "what `StepLR` works with. Found {}"),
        ({"schedule": "step", "schedule_options": {"stepsize": 2}}, "Did you mean `step_size`"),
        ({"schedule": "step", "schedule_options": {"step_size": "a"}}, "what `StepLR` works with"),
        ({"schedule": "step", "schedule_options": {"step_size": 0}}, "what `StepLR` works with"),
        ({"schedule_options": {"gamma": 0.1}}, "Found gamma and no schedule"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        Experiment(**{"data": "latent2", **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 1.5},
        {"seed": None},
        {"batch_size": True},
        {"compile": "yes"},
        {"devices": None},
        {"schedule_options": [2]},
        {"lr": "0.1"},
        {"arguments": {"alpha": torch.ones(1)}},
        {"data_options": [1]},
    ],
)
def test_wrong_kinds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Found"):
        Experiment(**{"data": "latent2", **wrong})


def test_unknown_fields_of_json_are_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean `epochs`"):
        Experiment.from_json({"data": "latent2", "epoch": 3})
    with pytest.raises(ValueError, match="name its `data`"):
        Experiment.from_json({"method": "joint"})


def test_none_is_the_recipe() -> None:
    experiment = Experiment("latent2", lr=0.5)
    resolved = experiment.resolved(experiment.load())
    assert (resolved.lr, resolved.batch_size, resolved.epochs) == (0.5, 64, 15)
    optimizer = resolved.optimizer_for([torch.nn.Parameter(torch.ones(1))])
    assert optimizer.defaults["momentum"] == 0.9
    assert optimizer.defaults["lr"] == 0.5
    with pytest.raises(ValueError, match="resolved"):
        experiment.optimizer_for([])


def test_adam_takes_no_momentum_from_the_recipe() -> None:
    experiment = Experiment("latent2", optimizer="adamw", lr=1e-3)
    resolved = experiment.resolved(experiment.load())
    assert resolved.momentum is None
    optimizer = resolved.optimizer_for([torch.nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.AdamW)


@pytest.mark.usefixtures("damped")
def test_arguments_of_a_chain_find_their_method() -> None:
    given = {"ogm_ge.alpha": 0.25, "beta": 3.0, "damped.alpha": 4.0}
    chain = Experiment("latent2", "ogm_ge+damped", arguments=given).build()
    assert repr(chain).startswith("OGMGE(alpha=0.25")
    assert repr(chain).endswith("Damped(alpha=4.0, beta=3.0)")
    with pytest.raises(ValueError, match=r"Write `ogm_ge\.alpha`"):
        Experiment("latent2", "ogm_ge+damped", arguments={"alpha": 1.0})


def test_differences_name_both_values() -> None:
    here, there = Experiment("latent2", seed=1), Experiment("latent2", seed=2)
    assert here.differences(there) == {"seed": (1, 2)}


def test_methods_know_how_long_the_training_is() -> None:
    long = Experiment("digits", method="amco+unimodal_init", epochs=100).build()
    assert "epochs=100" in repr(long) and "alone_epochs=100" in repr(long)
    short = Experiment("digits", method="amco+umt", epochs=8).build()
    assert "epochs=8" in repr(short) and "teacher_epochs=20" in repr(short)
    given = Experiment("digits", method="amco", epochs=8, arguments={"epochs": 3}).build()
    assert "epochs=3" in repr(given)
