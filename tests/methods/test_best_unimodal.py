"""Best unimodal: the prediction is the best modality's own, also where it is missing."""

from __future__ import annotations

import pytest
import torch

from equivox import Balancer, Concat, Multimodal
from equivox.methods.yardstick.best_unimodal import BestUnimodal
from equivox.testing.problem import Problem, sgd, steps


def trained(problem: Problem) -> Balancer:
    balancer = problem.balancer(BestUnimodal())
    for _ in steps(balancer, sgd(balancer), problem.loader(), epochs=2):
        pass
    return balancer


@pytest.mark.parametrize("task", ["Classification", "MultiLabel", "Regression"])
@pytest.mark.parametrize("modalities", [2, 3])
def test_it_predicts_with_the_best_on_validation(task: str, modalities: int) -> None:
    balancer = trained(Problem(modalities=modalities, task=task))
    method, names = balancer.method, balancer.model.modalities
    rows = balancer.collect(
        balancer.validation,
        lambda o, b: (
            {m: -balancer.task.loss(z, b.target, "none") for m, z in o.unimodal.items()}
            if task == "Regression"
            else {m: balancer.task.correct(z, b.target) for m, z in o.unimodal.items()}
        ),
    )
    expected = torch.stack([rows[m].mean() for m in names])
    torch.testing.assert_close(method.scores, expected)
    inputs = next(iter(balancer.validation))[0]
    best = names[int(expected.argmax())]
    balancer.eval()
    assert torch.equal(balancer.predict(inputs), balancer.model(inputs).unimodal[best])


def test_without_the_best_modality_the_next_answers() -> None:
    balancer = trained(Problem(modalities=3))
    balancer.method.scores.copy_(torch.tensor([0.9, 0.5, 0.7]))
    inputs = dict(next(iter(balancer.validation))[0])
    del inputs["audio"]
    inputs["present"] = {"audio": False}
    assert torch.equal(balancer.predict(inputs), balancer.model(inputs).unimodal["text"])


def test_it_needs_validation_data() -> None:
    problem = Problem()
    model = Multimodal(problem.model().encoders, Concat(problem.widths, 3))
    with pytest.raises(ValueError, match="held-out data"):
        Balancer(model, BestUnimodal(), task=problem.balancer(BestUnimodal()).task)
