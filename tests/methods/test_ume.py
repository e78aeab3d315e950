"""UME: the worked example, weights, and what it shares with the ensemble."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equivox import Balancer
from equivox.methods.objective.ume import UME
from equivox.methods.yardstick.ensemble import Ensemble
from equivox.testing.problem import Problem, sgd, state, steps


class Said:
    """An output of given unimodal logits."""

    def __init__(self, **logits: list[float]) -> None:
        self.unimodal = {m: torch.tensor([values]) for m, values in logits.items()}


def bound(method: UME, **options: Any) -> Balancer:
    return Problem(**options).balancer(method)


def test_the_worked_example() -> None:
    method = bound(UME()).method
    found = method.predict(Said(audio=[2.0, 0, 0], video=[0, 3.0, 0])).softmax(-1)
    torch.testing.assert_close(found, torch.tensor([[0.416132, 0.507975, 0.075893]]))


def test_logits_can_be_averaged() -> None:
    method = bound(UME(average="logits", weights={"audio": 1.0, "video": 3.0})).method
    found = method.predict(Said(audio=[2.0, 0, 0], video=[0, 4.0, 0]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 3.0, 0]]))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("task", ["Classification", "MultiLabel", "Regression"])
def test_one_weight_alone_is_that_model(task: str, average: str) -> None:
    balancer = bound(UME(weights={"video": 2.0}, average=average), modalities=3, task=task)
    inputs = next(iter(balancer.validation))[0]
    alone = balancer.model.eval()(inputs).unimodal["video"]
    probabilities = balancer.task.probabilities
    torch.testing.assert_close(probabilities(balancer.predict(inputs)), probabilities(alone))


def test_it_trains_as_the_ensemble_does() -> None:
    found = []
    for method in (UME(), Ensemble()):
        balancer = bound(method, modalities=3)
        for _ in steps(balancer, sgd(balancer), Problem(modalities=3).loader(), 2):
            pass
        found.append({k: v for k, v in state(balancer).items() if k.startswith("model.")})
    assert all(torch.equal(v, found[1][k]) for k, v in found[0].items())


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="not all zero"):
        UME(weights={"audio": 0.0})
    with pytest.raises(ValueError, match="`average` should be"):
        UME(average="votes")
    with pytest.raises(ValueError, match="Did you mean `audio`"):
        bound(UME(weights={"adio": 1.0}))
