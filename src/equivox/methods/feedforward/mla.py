"""MLA: Multimodal Representation Learning by Alternating Unimodal Adaptation (CVPR 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.distributed import summed
from equivox.functional import entropy
from equivox.fusion import SharedHead, sum_of
from equivox.method import Batch, Method
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task


def rls_update(
    p: Float[Tensor, "features features"],
    r: Float[Tensor, " features"],
    alpha: float | Float[Tensor, ""],
) -> Float[Tensor, "features features"]:
    """P - (P r)(P r)' / (alpha + r' P r): P loses the direction r, the more the smaller alpha.

    >>> rls_update(torch.eye(2), torch.tensor([1.0, 0.0]), alpha=0.1)
    tensor([[0.0909, 0.0000],
            [0.0000, 1.0000]])
    """
    pr = p @ r
    return p - torch.outer(pr, pr) / (alpha + r @ pr)


def entropy_weights(
    logits: Mapping[str, Float[Tensor, "batch outputs"]], kind: str = "classes"
) -> dict[str, Tensor]:
    """lambda_m, the softmax over modalities of minus the entropy of what each one says.

    :param kind: "classes": of the softmax over classes, for each sample; "labels": the mean binary
        entropy, for each sample; "batch": the released code's, one weight a modality, of softmaxes
        over the *batch*, summed over it and over the classes.

    >>> z = {"a": torch.tensor([[2.0, 0.0]]), "v": torch.tensor([[0.0, 0.0]])}
    >>> entropy_weights(z)
    {'a': tensor([[0.5812]]), 'v': tensor([[0.4188]])}
    """

    def uncertainty(z: Tensor) -> Tensor:
        if kind == "batch":
            return entropy(z.T).sum().view(1, 1)
        if kind == "labels":
            return entropy(torch.stack([z, torch.zeros_like(z)], -1)).mean(-1, keepdim=True)
        return entropy(z).unsqueeze(-1)

    weights = torch.stack([-uncertainty(z) for z in logits.values()]).softmax(0)
    return dict(zip(logits, weights, strict=True))


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
        inference: "sample" (paper), "batch" (released code: the answer depends on the test batch)
            or "fixed".
        weights: of the modalities, for "fixed"; equal where not given. The authors use 0.55 for
            audio or text and 0.45 for images.
        stale_momentum: encoders trained before in the same batch get zeros for gradients, so that
            momentum and weight decay move them again (released code).
        accumulation: how many forwards the loop makes before a step: as many batches of a modality
            then come together.

    A `SharedHead` replaces the fusion, unless the model has one; where that has several layers the
    last one's weight is projected.

    Departures: the head projects features of different widths to the largest. A `SharedHead` with
    `boost` is replaced.

    Source: Zhang et al., CVPR 2024, Eq. 5-9.

    >>> MLA(projection="none").projection
    'none'
    """

    category = "feed-forward"
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
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "needs to be told: `MLA(accumulation=2)`",
    }

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
        _check("projection", projection, ("rls", "none"))
        _check("reference", reference, ("previous", "current"))
        _check("normalise", normalise, (None, "fro"))
        _check("inference", inference, ("sample", "batch", "fixed"))
        if accumulation < 1:
            raise ValueError(
                f"`accumulation` should be one or more. Found `accumulation = {accumulation}`."
            )
        self.projection = projection
        self.reference = reference
        self.normalise = normalise
        self.inference = inference
        self.weights = weights
        self.stale_momentum = stale_momentum
        self.accumulation = accumulation

    def setup(self, model: Multimodal, task: Task) -> Task:
        if not isinstance(model.fusion, SharedHead) or model.fusion.boost is not None:
            model.require("widths", "outputs")
            model.fusion = SharedHead(model.widths, model.outputs or 1)
        if self.weights is not None and set(self.weights) != set(model.modalities):
            raise ValueError(
                f"`weights` should name the modalities {sorted(model.modalities)}. "
                f"Found {sorted(self.weights)}."
            )
        self.kind = _kind(task, self.inference)
        width = _head(model)[-1].in_features
        self.register_buffer("p", torch.eye(width))
        self.register_buffer("previous", torch.zeros(width))
        return task

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        count, done = length_hint(run.loader), 0
        iterator = iter(batches)
        while group := list(islice(iterator, self.accumulation)):
            progress = min(done / count, 1.0) if count else 0.0
            for modality in run.model.modalities:
                for batch in group:
                    if modality in batch.inputs:
                        yield batch.only(modality).with_(extra=progress)
            done += len(group)

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
        self.p = rls_update(self.p, r, update.mean("alpha"))
        if self.normalise == "fro":
            self.p = self.p / self.p.norm()
        weight.grad.copy_(weight.grad.float() @ self.p.T)

    def updated(self, update: Update) -> None:
        self.previous = _mean_read(update)

    def predict(self, output: Output) -> Tensor:
        logits = output.split
        if self.kind == "fixed":
            given = self.weights or dict.fromkeys(logits, 1.0)
            total = sum(given[m] for m in logits)
            return sum_of(given[m] / total * z for m, z in logits.items())
        weights = entropy_weights(logits, self.kind)
        return sum_of(weights[m] * z for m, z in logits.items())

    def _revive(self, update: Update) -> None:
        """Zero gradients, instead of none, for the encoders before this one."""
        current = next(iter(update.rows("read")))
        modalities = update.model.modalities
        for modality in modalities[: modalities.index(current)]:
            own = update.model.encoder_parameters(modality)
            for parameter in (*own, *update.model.branch_parameters(modality)):
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)


def _head(model: Multimodal) -> Any:
    fusion: Any = model.fusion
    return fusion.head


def _mean_read(update: Update) -> Tensor:
    """The mean over the update and all ranks of what the head's last layer read."""
    parts = [part for rows in update.rows("read").values() for part in rows]
    count = parts[0].new_tensor(sum(len(part) for part in parts))
    total, count = summed([sum_of(part.sum(0) for part in parts), count])
    return total / count


def _kind(task: Task, inference: str) -> str:
    """How predictions are weighted: entropies exist for classes and labels only."""
    if inference == "fixed" or isinstance(task, Regression):
        return "fixed"
    if inference == "batch":
        return "batch"
    return "labels" if isinstance(task, MultiLabel) else "classes"


def _check(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ValueError(f"`{name}` should be one of {known}. Found `{value!r}`.")
