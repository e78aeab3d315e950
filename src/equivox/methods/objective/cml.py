"""CML: Calibrating Multimodal Learning (ICML 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number, span
from equivox.distributed import world
from equivox.functional.confidence import confidence, rises
from equivox.functional.masking import nested_masks
from equivox.functional.schedules import within
from equivox.fusion import sum_of
from equivox.method import Method

if TYPE_CHECKING:
    from equivox.step import Step


class CML(Method):
    """Forbid that confidence rises when a modality is removed.

    L = (1/M) sum_j CE(z_j, y) + weight * sum_j sum_i ReLU((c_{j+1} - c_j) s_j - margin), over a
    chain of M subsets for each sample, each one modality smaller than the one before, in an order
    drawn anew for every sample and batch. c is the largest probability of z_j. What a sample lacks
    is removed first.

    Subsets are fused from the features with zeros for what was removed: the fusion runs M - 1 more
    times. For `Concat` and `Sum` this drops the modality's term and keeps the whole bias.

    Arguments:
        weight: lambda; 0.1 with a summed batch of 64 in BalanceBenchmark, tuned in the paper.
        margin: epsilon; 0.
        selection: s: "all" pairs (the paper's definition); "larger_correct", where the richer input
            is right (the MIWAE demonstration); "not_smaller_only_correct" (the CPM demonstration).
        lower_wrong: add ReLU(c_{j+1} - stopgrad(c_j) - margin) for the samples that both get wrong
            (MIWAE demonstration).
        reduction: "sum" over the batch as the authors, or "mean"; weight_mean = weight_sum * batch.
            Where samples have weights, the mean is the weighted one and the sum is batch times it.
        chain_loss: train the whole chain; False keeps the task's loss of all modalities only.
        starts, ends: first and last epoch, counted from 0, in which it acts.

    Departures: multi-label tasks average max(p, 1 - p) over the labels, and dense ones over the
    valid positions; the F1 of the labels or the share of right positions then takes the place of
    "right". The sum is multiplied by the number of processes, which stands for one large batch.

    Source: Ma et al., ICML 2023.

    >>> CML(weight=0.2)
    CML(weight=0.2, margin=0.0, selection='all', lower_wrong=False, reduction='sum', ...)
    """

    category = "objective"
    fidelity = "official"
    tasks = ("Classification", "MultiLabel", "Dense")
    search_space: ClassVar[Mapping[str, Any]] = {"weight": (0.1, 0.01, 0.2, 0.5)}
    neutral: ClassVar[Mapping[str, Any]] = {"weight": 0.0, "chain_loss": False}
    brief: ClassVar[Mapping[str, Any]] = {"reduction": "mean", "weight": 6.4}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "Every forward draws the orders of its own samples.",
    }

    def __init__(
        self,
        *,
        weight: float = 0.1,
        margin: float = 0.0,
        selection: str = "all",
        lower_wrong: bool = False,
        reduction: str = "sum",
        chain_loss: bool = True,
        starts: int = 0,
        ends: int | None = None,
    ) -> None:
        super().__init__()
        selections = ("all", "larger_correct", "not_smaller_only_correct")
        self.weight = number("weight", weight, least=0)
        self.margin = number("margin", margin, least=0)
        self.selection = choice("selection", selection, selections)
        self.lower_wrong = lower_wrong
        self.reduction = choice("reduction", reduction, ("sum", "mean"))
        self.chain_loss = chain_loss
        self.starts, self.ends = span(starts, ends)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        acts = within(step.epoch, self.starts, self.ends)
        if not acts or not (self.weight or self.chain_loss):
            return losses
        chain = [step.output.logits, *_reduced(step)]
        if self.chain_loss:
            rest = [step.loss(z) for z in chain[1:]]
            losses = losses | {"joint": sum_of([losses["joint"], *rest]) / len(chain)}
        if self.weight and len(chain) > 1:
            losses = losses | {"calibration": self.weight * self._regulariser(chain, step)}
        return losses

    def _regulariser(self, chain: Sequence[Tensor], step: Step) -> Tensor:
        c = [confidence(z, step.target, step.task) for z in chain]
        right = [step.task.correct(z, step.target) for z in chain]
        terms = [self._term(c[j], c[k], right[j], right[k]) for j, k in pairwise(range(len(chain)))]
        rows = torch.stack(terms).sum(0)
        if self.reduction == "mean":
            return step.average(rows)
        # Weights say how a batch is shared among its samples, not how much the batch counts.
        total = rows.sum() if step.weight is None else step.average(rows) * len(rows)
        return total * world()

    def _term(self, larger: Tensor, smaller: Tensor, right: Tensor, after: Tensor) -> Tensor:
        selected = {
            "all": None,
            "larger_correct": right,
            "not_smaller_only_correct": 1 - after * (1 - right),
        }[self.selection]
        term = rises(larger, smaller, selected, self.margin)
        if not self.lower_wrong:
            return term
        both_wrong = (1 - right) * (1 - after)
        return term + both_wrong * rises(larger.detach(), smaller, None, self.margin)


def _reduced(step: Step) -> list[Tensor]:
    """The logits after one, two, … modalities were removed, in each sample's own order."""
    known = step.modalities
    order = step.uniform_rows(len(known))
    if (there := step.there()) is not None:
        order = order + ~there[:, [step.model.modalities.index(m) for m in known]]
    reduced = []
    for kept in nested_masks(order)[1:]:
        columns = dict.fromkeys(step.model.modalities, torch.ones_like(kept[:, 0]))
        columns |= zip(known, kept.unbind(1), strict=True)
        keep = torch.stack(list(columns.values()), 1)
        reduced.append(step.model.fuse(step.output.features, keep))
    return reduced
