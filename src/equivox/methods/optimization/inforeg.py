"""Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition (CVPR 2025)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.distributed import summed
from equivox.functional.discrepancy import lead_over_worse, regulation_strength
from equivox.method import Method
from equivox.modules.anchors import Anchors
from equivox.modules.fisher_traces import FisherTraces

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task

OFFICIAL = {"beta": 1.0, "threshold": 0.05, "smooth": 10, "score": "prob_sum", "trace": "total"}
OFFICIAL |= {"starts": 0, "unimodal_loss": True}


class InfoReg(Method):
    """Tie encoders that are ahead to their weights of the last epoch, while these still learn fast.

    An encoder in its prime learning window (D_m > threshold, the relative growth of the trace of
    its Fisher information) that leads by Delta_m > 0 is pulled back: g <- g + alpha_m (w_m - w_m'),
    with w_m' its weights at the start of the epoch and alpha_m = exp(beta tanh(Delta_m)). Delta_m
    is the mean lead of s_m over the worse modalities, s_m the mean log-likelihood of m's share.

    Arguments:
        beta: how strongly alpha grows with the lead; the paper uses 0.9.
        threshold: K; the paper uses 0.04. With 1 nothing is ever regulated.
        smooth: epochs of the moving mean of the trace; 1 in the paper.
        score: "log", or "prob_sum", the code's sum of true-class probabilities over the batch.
        trace: "loss", that of the loss alone, or "total", after the term was added.
        starts: first epoch, from 0, with regulation; 2 in the paper, when there are two traces.
        unimodal_loss: True is InfoReg*: a loss of each modality's share of the logits is added.
        variant: "official", the released code, is for two modalities and sets all other arguments:
            the first one's trace decides for both; alpha = c exp(tanh(Delta)), c = 0.95 and 0.1.

    Departures: s_m is minus the loss for other tasks; the trace sums squared gradients of updates.

    Raises ValueError where `variant="official"` meets other arguments, or not two modalities.

    Source: CVPR 2025, arXiv 2503.18595, Eq. 4-10.

    >>> InfoReg(threshold=0.06)  # doctest: +ELLIPSIS
    InfoReg(beta=0.9, threshold=0.06, smooth=1, score='log', trace='loss', ...)
    """

    category = "optimization"
    fidelity = "official"
    search_space: ClassVar[Mapping[str, Any]] = {
        "beta": (0.9, 0.1, 0.3, 0.5, 0.7, 1.0),
        "threshold": (0.04, 0.01, 0.02, 0.06, 0.08, 0.1),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"threshold": 1.0}
    brief: ClassVar[Mapping[str, Any]] = {"starts": 1}

    def __init__(
        self,
        *,
        beta: float = 0.9,
        threshold: float = 0.04,
        smooth: int = 1,
        score: str = "log",
        trace: str = "loss",
        starts: int = 2,
        unimodal_loss: bool = False,
        variant: str = "paper",
    ) -> None:
        super().__init__()
        self.beta = number("beta", beta, least=0)
        self.threshold = threshold
        self.smooth = number("smooth", smooth, least=1)
        self.score = choice("score", score, ("log", "prob_sum"))
        self.trace = choice("trace", trace, ("loss", "total"))
        self.starts = number("starts", starts, least=0)
        self.unimodal_loss = unimodal_loss
        self.variant = choice("variant", variant, ("paper", "official"))
        if variant == "official":
            self._follow_official()
        self.ingredients = frozenset({"unimodal losses"} if self.unimodal_loss else ())

    def _follow_official(self) -> None:
        arguments = inspect.signature(InfoReg).parameters
        for name, value in OFFICIAL.items():
            if getattr(self, name) not in (arguments[name].default, value):
                raise ValueError(
                    f'`variant="official"` sets every other argument. Found a value for `{name}`. '
                    "Leave it out, or leave `variant` out."
                )
            setattr(self, name, value)

    def setup(self, model: Multimodal, task: Task) -> Task:
        official = self.variant == "official"
        if official and len(model.modalities) != 2:
            raise ValueError(
                f'`variant="official"` is for two modalities. Found {len(model.modalities)}. Leave '
                "it out: the paper's rule takes any number."
            )
        encoders = {m: model.encoder_parameters(m) for m in model.modalities}
        self.traces = FisherTraces(encoders, self.smooth, undefined=1.0 if official else 0.0)
        self.anchors = Anchors(encoders)
        return task

    def prepare(self, run: Run) -> None:
        self.anchors.remember_({m: run.model.encoder_parameters(m) for m in run.model.modalities})
        self.traces.finish_epoch_()

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        split = step.output.split
        step.note("scores", {m: self._rows(step, logits) for m, logits in split.items()})
        return losses | {m: step.loss(z) for m, z in split.items() if self.unimodal_loss}

    def _rows(self, step: Step, logits: Tensor) -> Tensor:
        if self.score == "prob_sum":
            return step.score(logits)
        return -step.task.loss(logits.detach().float(), step.target, reduction="none")

    def gradients(self, update: Update) -> None:
        strengths = self.strengths(update) if update.epoch >= self.starts else {}
        for m in update.model.modalities:
            encoder = update.model.encoder_parameters(m)
            if self.trace == "loss":
                self.traces.add_(m, encoder)
            if m in strengths:
                self.anchors.pull_(m, encoder, strengths[m])
            if self.trace == "total":
                self.traces.add_(m, encoder)

    def strengths(self, update: Update) -> dict[str, Tensor]:
        """alpha_m of the update, 0 for an encoder that is not regulated."""
        scores = update.mean("scores")
        if self.score == "prob_sum":
            sums = [torch.cat(parts).sum() for parts in update.rows("scores").values()]
            scores = dict(zip(scores, summed(sums), strict=True))
        alpha = {m: regulation_strength(d, self.beta) for m, d in lead_over_worse(scores).items()}
        growth = {m: self.traces.growth[m] for m in alpha}
        if self.variant == "official":
            first, second = update.model.modalities
            growth = dict.fromkeys(alpha, self.traces.growth[first])
            alpha = {m: a * {first: 0.95, second: 0.1}[m] for m, a in alpha.items()}
        return {m: a * (growth[m] > self.threshold) for m, a in alpha.items()}
