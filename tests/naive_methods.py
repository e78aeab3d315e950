"""Methods written as one would at first, each with a fault that the suite must find."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from equivox.fusion import sum_of
from equivox.method import Batch, Method
from equivox.model import Multimodal
from equivox.run import Run
from equivox.step import Step, Update
from equivox.task import Task


class LocalScores(Method):
    """Scale gradients by this rank's own scores."""

    category = "optimization"

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        step.note("score", {m: step.score(o) for m, o in step.output.split.items()})
        return losses

    def gradients(self, update: Update) -> None:
        for modality, rows in update.rows("score").items():
            torch._foreach_mul_(update.gradient(modality), torch.cat(rows).mean())


class RankNoise(Method):
    """Add noise from the global generator, which differs between ranks."""

    category = "optimization"

    def gradients(self, update: Update) -> None:
        for modality in update.model.modalities:
            for gradient in update.gradient(modality):
                gradient.add_(torch.randn_like(gradient), alpha=0.01)


class Unsynchronised(Method):
    """Replace gradients by `autograd.grad` of this rank's loss."""

    category = "optimization"

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        model = step.model
        parameters = [p for m in model.modalities for p in model.encoder_parameters(m)]
        total = sum_of(losses.values())
        self.found = torch.autograd.grad(total, parameters, retain_graph=True)
        return losses

    def gradients(self, update: Update) -> None:
        held = [g for m in update.model.modalities for g in update.gradient(m)]
        torch._foreach_copy_(held, self.found)


class ZeroNotNone(Method):
    """Let one encoder rest by setting its gradient to zero, so that weight decay moves it still."""

    category = "optimization"
    idle = frozenset({"encoders"})

    def gradients(self, update: Update) -> None:
        for modality in update.model.modalities:
            torch._foreach_zero_(update.gradient(modality))


class Forgetful(Method):
    """Keep a running mean in an attribute, where no checkpoint finds it."""

    category = "optimization"

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.mean = torch.zeros(())
        return task

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        self.mean = 0.9 * self.mean + losses["joint"].detach()
        return {"joint": losses["joint"] * (1 + self.mean)}


class Restless(Method):
    """Draw how often a batch comes from the global generator, which dropout has moved."""

    category = "data"

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        for batch in batches:
            for _ in range(int(torch.randint(1, 5, ()))):
                yield batch


class Waiting(Method):
    """Branch on a tensor in a step."""

    category = "objective"

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        loss = losses["joint"]
        return {"joint": loss * 2 if loss > 1 else loss}


class Positional(Method):
    """Take a hyper-parameter by position."""

    category = "objective"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight: Any = weight
