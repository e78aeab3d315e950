"""Ensemble: modalities trained alone, their tempered probabilities averaged (a yardstick)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.methods.yardstick.alone import Independent
from equivox.task import Regression, Task

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal, Output
    from equivox.run import Run


def mean_prediction(
    task: Task,
    logits: Mapping[str, Tensor],
    weights: Float[Tensor, " modalities"],
    temperatures: Float[Tensor, " modalities"] | None = None,
) -> Tensor:
    """The weighted mean of p(z_m / T_m), as logits again; weights are divided by their sum.

    >>> from equivox import Classification
    >>> said = {"a": torch.tensor([[2.0, 0.0, 0.0]]), "b": torch.tensor([[0.0, 3.0, 0.0]])}
    >>> mean_prediction(Classification(), said, torch.ones(2)).softmax(-1)
    tensor([[0.4161, 0.5080, 0.0759]])
    """
    if temperatures is not None:
        logits = {m: z / t for (m, z), t in zip(logits.items(), temperatures, strict=True)}
    parts = torch.stack([task.probabilities(z) for z in logits.values()])
    shares = shares_of(weights).to(parts.dtype)
    return task.logits(torch.tensordot(shares, parts, dims=1))


def shares_of(weights: Float[Tensor, " modalities"]) -> Float[Tensor, " modalities"]:
    """The weights over their sum; equal ones where all are zero, for somebody has to answer."""
    weights = torch.where(weights.sum() > 0, weights, torch.ones_like(weights))
    return weights / weights.sum()


def best_temperature(task: Task, logits: Tensor, target: Any) -> Float[Tensor, ""]:
    """The T in [0.05, 20] with the least loss of z / T; one for regression."""
    if isinstance(task, Regression):
        return torch.ones((), device=logits.device)
    logits = logits.double()

    def temperature(x: Tensor) -> Tensor:
        return 20 ** x.clamp(-1, 1)

    start = logits.new_zeros(())
    return temperature(_least(lambda x: task.loss(logits / temperature(x), target), start)).float()


@torch.enable_grad()
def _least(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Where a smooth loss is least."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([x], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value

    optimizer.step(closure)
    return x.detach()


def best_weights(
    task: Task,
    logits: Mapping[str, Tensor],
    target: Any,
    temperatures: Float[Tensor, " modalities"],
    rounds: int = 20,
) -> Float[Tensor, " modalities"]:
    """Weights of sum one under which the mean prediction is right most often.

    Greedy selection with replacement: starting from one vote each, the modality that helps most
    gets another, `rounds` times, and the best weights met are returned; single modalities are
    tried too. Among equals the loss decides.
    """

    def value(votes: Tensor) -> tuple[float, float]:
        mean = mean_prediction(task, logits, votes, temperatures)
        return float(task.merit(mean, target).mean()), -float(task.loss(mean, target))

    one = torch.eye(len(logits), device=temperatures.device)
    votes = torch.ones_like(temperatures)
    met = [votes, *one]
    for _ in range(rounds):
        votes = max((votes + vote for vote in one), key=value)
        met.append(votes)
    best = max(met, key=value)
    return best / best.sum()


class Ensemble(Independent):
    """Train every modality alone and predict the weighted mean of their tempered probabilities.

    p = sum_m w_m p(z_m / T_m). After every epoch the validation data choose the temperature T_m of
    each head by the task's loss, then the weights w by how often the mean is right: a greedy search
    (Caruana et al., ICML 2004). Regression averages predictions, without temperatures, and chooses
    by the loss; multi-label tasks average each label's probability. Where a batch lacks a modality
    the weights of the others are divided by their sum.

    `weights` and `temperatures`, (modalities,) each, hold the last choice.

    >>> Ensemble()
    Ensemble()
    """

    needs_validation = True
    weights: Tensor
    temperatures: Tensor

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.task = task
        self.register_buffer("weights", torch.ones(len(model.modalities)) / len(model.modalities))
        self.register_buffer("temperatures", torch.ones(len(model.modalities)))
        return task

    def conclude(self, run: Run) -> None:
        rows = run.collect(run.validation or (), lambda o, b: o.unimodal | {"": b.target})
        target = rows.pop("")
        said = {m: rows[m].float() for m in run.model.modalities}
        heads = [best_temperature(run.task, z, target) for z in said.values()]
        self.temperatures.copy_(torch.stack(heads))
        self.weights.copy_(best_weights(run.task, said, target, self.temperatures))

    def predict(self, output: Output) -> Tensor:
        said = output.unimodal
        numbers = [output.model.modalities.index(m) for m in said]
        return mean_prediction(self.task, said, self.weights[numbers], self.temperatures[numbers])
