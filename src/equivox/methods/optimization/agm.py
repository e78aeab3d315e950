"""AGM: Boosting Multi-modal Model Performance with Adaptive Gradient Modulation (ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number, span
from equivox.functional import scale_gradient, shapley_values, subsets
from equivox.functional.discrepancy import factors_by_discrepancy
from equivox.functional.gradients import clip_where_large_
from equivox.functional.precision import at_least_float32
from equivox.functional.schedules import within
from equivox.fusion import sum_of
from equivox.masked_inputs import masked_logits
from equivox.method import Method

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.step import Step, Update
    from equivox.task import Task


class AGM(Method):
    """Scale the gradient that flows into each modality's response to the batch.

    The response o_m is the Shapley value of modality m in the logits, so that their sum is the
    plain logits; the loss is that of sum_m G_m(o_m), where G_m multiplies gradients by kappa_m and
    changes no value. kappa_m = exp(alpha min(tau_m - r_m, cap)), below one for a modality that is
    further ahead than usual: r_m = exp(mean over the others j of s_j - s_m), with s_m the mean loss
    of o_m, and tau_m the same of the losses' running means. Any network, any fusion.

    Arguments:
        alpha: strength; the authors use 1.5 on CREMA-D and 2.5 on AV-MNIST.
        cap: upper bound of tau - r; 10 on CREMA-D, 7 on UR-Funny, None elsewhere.
        mask: "input" blanks the inputs of absent modalities, as the paper does: every encoder runs
            three times a step, however many modalities there are. "feature" blanks features: no
            encoder runs again.
        clip: where an entry of the fusion's weight gradients exceeds it, the norm of all gradients
            is clipped to it; None leaves them.
        starts, ends: first and last epoch, counted from 0, in which it acts. The code counts from
            1 and ends at 20 by default; on CREMA-D it acts throughout.
        after_end: "identity", or "freeze": the last factors for ever, as in the released code.
        centre: responses without the logits of no modality at all, which joins the output as it is;
            for regression with a large bias.

    Departures: exact for any number of modalities; encoders, being independent, run once for all
    subsets. The score of regression and multi-label tasks is their loss; running means count
    updates, of which several micro-batches are one.

    Raises TypeError where `mask="input"` meets an input without a floating tensor.

    Source: Li et al., ICCV 2023; scores, cap and clipping after the released code.

    >>> AGM(alpha=1.5).mask
    'input'
    """

    category = "optimization"
    fidelity = "official"
    search_space: ClassVar[Mapping[str, Any]] = {"alpha": (1.5, 2.5, 1.0, 0.5, 0.1)}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "The paper's factors follow the scores of one forward."
    }
    running: Tensor
    count: Tensor
    kappa: Tensor

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        cap: float | None = 10.0,
        mask: str = "input",
        clip: float | None = 1.0,
        starts: int = 0,
        ends: int | None = None,
        after_end: str = "identity",
        centre: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = number("alpha", alpha, least=0)
        self.cap = cap
        self.mask = choice("mask", mask, ("input", "feature"))
        self.clip = number("clip", clip, above=0)
        self.starts, self.ends = span(starts, ends)
        self.after_end = choice("after_end", after_end, ("identity", "freeze"))
        self.centre = centre

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.register_buffer("running", torch.zeros(len(model.modalities)))
        self.register_buffer("count", torch.zeros(len(model.modalities)))
        self.register_buffer("kappa", torch.ones(len(model.modalities)))
        return task

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        values = self._values(step)
        responses = shapley_values(values, step.modalities)
        # -log of the clamped probability is the loss, at most -log 1e-8.
        scores = {m: -step.score(o).clamp(min=1e-8).log() for m, o in responses.items()}
        step.note("score", scores)
        kappa = self._kappa(step.mean(scores), step)
        terms = [scale_gradient(o, kappa[m]) for m, o in responses.items()]
        rest = [values[frozenset()]] if self.centre else []
        return losses | {"joint": step.loss(sum_of(terms + rest))}

    def gradients(self, update: Update) -> None:
        if self.clip is not None:
            every = [p.grad for p in update.model.parameters() if p.grad is not None]
            matrices = [p.grad for p in update.model.fusion_parameters() if p.ndim > 1]
            clip_where_large_(every, [g for g in matrices if g is not None], self.clip)

    def updated(self, update: Update) -> None:
        scores = update.mean("score")
        kappa = self._kappa(scores, update)
        for modality, score in scores.items():
            i = update.model.modalities.index(modality)
            self.kappa[i] = kappa[modality]
            self.count[i] += 1
            self.running[i].lerp_(score, 1 / self.count[i])

    def _values(self, step: Step) -> dict[frozenset[str], Tensor]:
        """The logits of every subset of the modalities; of no modality only where it is needed."""
        wanted = [s for s in subsets(step.modalities)[:-1] if s or self.centre]
        if self.mask == "input":
            values = masked_logits(step, wanted)
        else:
            values = step.model.fuse_subsets(step.output.features, wanted)
        values[frozenset(step.modalities)] = step.output.logits
        return {s: at_least_float32(x) for s, x in values.items()}

    def _kappa(self, scores: Mapping[str, Tensor], at: Step | Update) -> dict[str, Tensor]:
        """The factors for these scores, at this step or update."""
        index = {m: at.model.modalities.index(m) for m in scores}
        if self.after_end == "freeze" and not within(at.epoch, 0, self.ends):
            return {m: self.kappa[i].clone() for m, i in index.items()}
        if not within(at.epoch, self.starts, self.ends):
            return {m: torch.ones_like(s) for m, s in scores.items()}
        running = {m: self.running[i] for m, i in index.items()}
        return factors_by_discrepancy(scores, running, self.alpha, self.cap)
