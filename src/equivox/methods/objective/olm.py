"""OLM: Balancing Multimodal Learning via Online Logit Modulation (IJCAI 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.arguments import choice, number
from equivox.functional.gradients import adam_step_
from equivox.functional.learning_rates import lag, speed_ratios
from equivox.functional.norms import norm_distance, sample_norms
from equivox.functional.precision import at_least_float32
from equivox.method import Batch, Method
from equivox.methods.held_out import cycled
from equivox.model import evaluating
from equivox.modules.constants import constants
from equivox.task import Regression

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task

Scalars = Mapping[str, Tensor]


class OLM(Method):
    """Scale each branch's logits by a learned number, pulled to a target that its speed sets.

    Branches k are the modalities, by their own heads, and the fusion ("joint"). The loss is
    sum_k L(w_k z_k, y) + mean_i sum_k |N_ik - T_ik| with N_ik = w_k |z_k^i| and the target
    T_ik = r_k mean_k(N_ik); the second term moves the w_k alone. With L^0 the losses of the last
    batch of epoch 0, on training and held-out data, G_k = L'_k^0 - L'_k and
    O_k = (L_k^0 - L_k) - G_k, r = softmax(max(G, 1e-6) / max(O, 1e-6)).

    Arguments:
        variant: "generalisation", or "loss_ratio", r = q / mean(q), q = L / L^0: no held-out data.
        lr: rate of the w_k in an Adam of their own, whatever the optimizer; 1e-3 in the authors'
            code. None leaves them to the model's optimizer, as for their transformers.
        normalise: "sum", r sums to one (released code), or "mean", K r; of "generalisation" only.
        reduction: "mean", or "sum" over the batch, as the released code.
        hold_out: "eval", the held-out batch is read in eval mode, or "train", as the released code.

    Departures: batch means; the held-out loader is cycled; the fusion is the model's (the authors':
    bilinear), its z the prediction. Regression, where sizes have a meaning, has no second term and
    predicts w z.

    Source: Zong et al., IJCAI 2024, and the submission's code.

    >>> OLM(variant="loss_ratio")  # doctest: +ELLIPSIS
    OLM(variant='loss_ratio', lr=0.001, normalise='sum', ...)
    """

    category = "objective"
    fidelity = "official"
    heads = "own"
    needs_validation = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "variant": ("generalisation", "loss_ratio"),
        "lr": (1e-3, 1e-4),
    }
    exceptions: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("equals_in_micro_batches", "equals_on_two_ranks_accumulating"),
        "every step compares its own losses with a held-out batch",
    )

    def __init__(
        self,
        *,
        variant: str = "generalisation",
        lr: float | None = 1e-3,
        normalise: str = "sum",
        reduction: str = "mean",
        hold_out: str = "eval",
    ) -> None:
        super().__init__()
        self.variant = choice("variant", variant, ("generalisation", "loss_ratio"))
        self.lr = number("lr", lr, least=0)
        self.normalise = choice("normalise", normalise, ("sum", "mean"))
        self.reduction = choice("reduction", reduction, ("mean", "sum"))
        self.hold_out = choice("hold_out", hold_out, ("eval", "train"))
        self.needs_validation = variant == "generalisation"

    def setup(self, model: Multimodal, task: Task) -> Task:
        branches = (*model.modalities, "joint")
        self.task = task
        self.moments = constants(dict.fromkeys(branches, torch.zeros(3)))
        self.scales = nn.ParameterDict({k: nn.Parameter(torch.ones(())) for k in branches})
        self.reference = constants(dict.fromkeys(branches, torch.zeros(())))
        self.held_out_reference = constants(dict.fromkeys(branches, torch.zeros(())))
        return task

    def groups(self) -> list[dict[str, Any]]:
        if self.lr is None:
            return []
        return [{"params": list(self.scales.parameters()), "lr": 0.0, "weight_decay": 0.0}]

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        if self.variant == "loss_ratio":
            yield from batches
            return
        for batch, other in zip(batches, cycled(run), strict=False):
            yield batch.with_(extra={"inputs": other.inputs, "target": other.target})

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        branches = {**step.output.unimodal, "joint": step.output.logits}
        scaled = self._scaled(branches)
        terms = {k: step.loss(z) for k, z in scaled.items()}
        if not isinstance(step.task, Regression):
            norms = {k: sample_norms(z) for k, z in branches.items()}
            ratios = self._ratios(scaled, step)
            terms["norm"] = step.average(norm_distance(dict(self.scales), norms, ratios))
        count = len(step.output.logits) if self.reduction == "sum" else 1
        return losses | {k: count * term for k, term in terms.items()}

    def updated(self, update: Update) -> None:
        if self.lr is None:
            return
        for k, scale in self.scales.items():
            if scale.grad is not None:
                adam_step_(scale, scale.grad, self.moments[k], self.lr)

    def predict(self, output: Output) -> Tensor:
        numbers = isinstance(self.task, Regression)
        return self.scales["joint"] * output.logits if numbers else output.logits

    def _scaled(self, branches: Scalars) -> dict[str, Tensor]:
        return {k: self.scales[k] * at_least_float32(z) for k, z in branches.items()}

    @torch.no_grad()
    def _ratios(self, scaled: Scalars, step: Step) -> Scalars:
        """r_k, the share of the mean norm that each branch should have."""
        now = _means(scaled, step.target, step, self.reference)
        if self.variant == "loss_ratio":
            ratios = lag(*(torch.stack([x[k] for k in now]) for x in (now, self.reference)))
            return dict(zip(now, ratios.unbind(), strict=True))
        later = self._held_out(step)
        gains = {k: self.held_out_reference[k] - later[k] for k in now}
        over = {k: self.reference[k] - now[k] - gains[k] for k in now}
        factor = len(now) if self.normalise == "mean" else 1
        return {k: factor * r for k, r in speed_ratios(gains, over).items()}

    def _held_out(self, step: Step) -> Scalars:
        """Each branch's loss on the held-out batch."""
        with evaluating(step.model) if self.hold_out == "eval" else nullcontext():
            output = step.model(step.batch.extra["inputs"])
            output.features = step.model.completed(output.features)
            scaled = self._scaled({**output.unimodal, "joint": output.logits})
        return _means(scaled, step.batch.extra["target"], step, self.held_out_reference)


def _means(scaled: Scalars, target: Any, step: Step, references: nn.ParameterDict) -> Scalars:
    """The task's mean loss of each branch, over all ranks; in epoch 0 the references keep it."""
    losses = {k: step.task.loss(z, target, reduction="none") for k, z in scaled.items()}
    means: Scalars = step.mean(losses)
    if step.epoch == 0:
        for k, mean in means.items():
            references[k].copy_(mean)
    return means
