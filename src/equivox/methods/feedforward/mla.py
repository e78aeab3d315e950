"""MLA: Multimodal Representation Learning by Alternating Unimodal Adaptation (CVPR 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.functional.averaging import entropy_weights, row_totals, weighted_mean
from equivox.functional.least_squares import rls_update
from equivox.fusion import sum_of
from equivox.method import Batch, Method
from equivox.methods.turns import by_turns, share_head
from equivox.task import Regression, Task

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step, Update


class MLA(Method):
    """Train one modality after the other through a shared head that forgets none of them.

    Every batch becomes one update a modality, of its encoder and of one head for all of them; no
    loss sees two modalities. The gradient of the head's weight becomes grad P', where P loses the
    mean feature r of the modality trained before: P <- P - (P r)(P r)' / (alpha_i + r' P r) with
    alpha_i = 0.1^(1 + i / n) in batch i of n. The prediction is sum_m lambda_m z_m with weights
    from the entropy of each modality's answer; for regression the weights are equal.

    Arguments:
        projection: "rls", or "none": the released code, whose projection never runs.
        reference: r is of the "previous" update (paper) or of the "current" one.
        normalise: "fro" divides P by its Frobenius norm after each change; None (paper) does not.
        inference: "sample" (paper), "batch" (code: depends on the test batch) or "fixed".
        weights: for "fixed"; equal if None, in the code 0.55 for audio or text, 0.45 for images.
        stale_momentum: momentum moves the encoders trained before in the batch again (code).
        accumulation: forwards before a step: as many batches of a modality then come together.

    Departures: a `SharedHead` is the fusion; where it has several layers, P acts on the last one.

    Source: Zhang et al., CVPR 2024, Eq. 5-9.

    >>> MLA(projection="none").projection
    'none'
    """

    category = "feed-forward"
    fidelity = "official"
    tasks = ("Classification", "MultiLabel", "Regression")
    replaces_fusion = True
    leaves_unused = True
    ingredients = frozenset({"unimodal losses", "inference rule"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "projection": ("rls", "none"),
        "inference": ("sample", "fixed"),
    }
    p: Tensor  # P of the recursive least squares
    previous: Tensor  # r of the last update
    exceptions: ClassVar[Mapping[str, str]] = {"equals_in_micro_batches": "needs `accumulation=2`"}

    def __init__(
        self,
        *,
        projection: str = "rls",
        reference: str = "previous",
        normalise: str | None = None,
        inference: str = "sample",
        weights: Mapping[str, float] | None = None,
        stale_momentum: bool = False,
        accumulation: int = 1,
    ) -> None:
        super().__init__()
        self.projection = choice("projection", projection, ("rls", "none"))
        self.reference = choice("reference", reference, ("previous", "current"))
        self.normalise = choice("normalise", normalise, (None, "fro"))
        self.inference = choice("inference", inference, ("sample", "batch", "fixed"))
        self.weights = weights
        self.stale_momentum = stale_momentum
        self.accumulation = number("accumulation", accumulation, least=1)

    def setup(self, model: Multimodal, task: Task) -> Task:
        share_head(model)
        names, found = sorted(model.modalities), sorted(self.weights or model.modalities)
        if found != names:
            raise ValueError(f"`weights` should be one for each of {names}. Found {found}.")
        self.task = task
        width = _head(model)[-1].in_features
        self.register_buffer("p", torch.eye(width))
        self.register_buffer("previous", torch.zeros(width))
        return task

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        n, k = run.length or float("inf"), self.accumulation
        told = (b.with_(extra=min(i // k * k / n, 1.0)) for i, b in enumerate(batches))
        return by_turns(told, run.model.modalities, k)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        fusion: Any = step.model.fusion
        with torch.no_grad():
            projected = fusion.projected(step.output.features)
            step.note("read", {m: fusion.head[:-1](z) for m, z in projected.items()})
        rows = next(iter(projected.values()))
        step.note("alpha", rows.new_full((1,), 0.1 ** (1 + step.batch.extra), dtype=torch.float))
        return losses

    def gradients(self, update: Update) -> None:
        if self.stale_momentum:
            self._revive(update)
        weight = _head(update.model)[-1].weight
        if self.projection == "none" or update.number == 0 or weight.grad is None:
            return
        r = self.previous if self.reference == "previous" else _mean_read(update)
        p = rls_update(self.p, r, update.mean("alpha"))
        self.p = p / p.norm() if self.normalise == "fro" else p
        weight.grad.copy_(weight.grad.float() @ self.p.T)

    def updated(self, update: Update) -> None:
        self.previous = _mean_read(update)

    def predict(self, output: Output) -> Tensor:
        said = output.split
        if self.inference == "fixed" or isinstance(self.task, Regression):  # has no entropies
            return weighted_mean(said, self.weights or dict.fromkeys(said, 1.0))
        weights = entropy_weights(said, self.task, over_batch=self.inference == "batch")
        return sum_of(weights[m] * z for m, z in said.items())

    def _revive(self, update: Update) -> None:
        """Zero gradients, instead of none, for the encoders before this one."""
        model, (current,) = update.model, update.rows("read")
        for m in model.modalities[: model.modalities.index(current)]:
            for parameter in (*model.encoder_parameters(m), *model.branch_parameters(m)):
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)


def _head(model: Multimodal) -> Any:
    fusion: Any = model.fusion
    return fusion.head


def _mean_read(update: Update) -> Tensor:
    """The mean over the update and all ranks of what the head's last layer read."""
    rows = update.rows("read").values()
    total, count = row_totals([part for parts in rows for part in parts])
    return total / count
