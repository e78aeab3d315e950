"""PMR: Prototypical Modal Rebalance for Multimodal Learning (CVPR 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number, span
from equivox.features import vector
from equivox.functional import entropy
from equivox.functional.discrepancy import lags_and_leads
from equivox.functional.labels import answers, asked, quantile_edges
from equivox.functional.prototypes import prototype_loss
from equivox.functional.schedules import within
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.modules.prototypes import Prototypes
from equivox.task import Regression

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task


def first_batches(loader: Iterable[Any], share: float) -> Iterable[Any]:
    """The first batches of a loader, at least one; all where it does not say how many it has."""
    count = length_hint(loader)
    return islice(loader, max(1, int(count * share + 1e-9))) if count else loader


class PMR(Method):
    """Push the slow modality with a prototype classifier, hold the dominant one back by entropy.

    c_k^m is the mean feature of class k, p^m the softmax of the negative Euclidean distances to
    them, S_m the mean of p^m at the true class. The loss gains alpha sum_m slow_m CE(p^m) and, in
    the first epochs, -mu sum_m dominant_m H(p^m); see `lags_and_leads`. Works on features alone.

    Arguments:
        alpha: weight of the prototype loss; 1 or 2 in the paper, up to 3 in released commands.
        mu: weight of the entropy; 1e-2 or 1e-3 in the paper.
        entropy_epochs: epochs with the entropy term, "the first few"; reproductions use 10.
        momentum: on the old prototypes; the code's default is 0.2, its commands pass 0.
        share: of the training batches from which prototypes are made, before every epoch; 0.1.
        starts, ends: first and last epoch, counted from 0, in which it acts.
        variant: "paper", or "official", the released code: alpha undiminished for whoever is
            behind, no entropy term, and a second first time for the prototypes.
        temperature: distances are divided by it; above one where wide features saturate them.
        bins: quantile bins of a regression target, whose prototypes stand for classes.

    Departures: samples of a class without a prototype count in neither term, and prototypes always
    come from training data. A multi-label task has two prototypes a label.

    Source: Fan et al., CVPR 2023.

    >>> PMR(alpha=2.0).momentum
    0.2
    """

    category = "optimization"
    tasks = ("Classification", "MultiLabel", "Regression")
    fidelity = "paper"
    search_space: ClassVar[Mapping[str, Any]] = {
        "alpha": (1.0, 2.0, 3.0, 0.5),
        "mu": (1e-2, 1e-3),
        "momentum": (0.2, 0.0, 0.5),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0, "mu": 0.0}
    brief: ClassVar[Mapping[str, Any]] = {"share": 1.0}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "The loss weights follow the scores of one forward."
    }
    edges: Tensor

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        mu: float = 1e-2,
        entropy_epochs: int = 10,
        momentum: float = 0.2,
        share: float = 0.1,
        starts: int = 0,
        ends: int | None = None,
        variant: str = "paper",
        temperature: float = 1.0,
        bins: int = 8,
    ) -> None:
        super().__init__()
        self.alpha = number("alpha", alpha, least=0)
        self.mu = number("mu", mu, least=0)
        self.entropy_epochs = entropy_epochs
        self.momentum = number("momentum", momentum, least=0, below=1)
        self.share = number("share", share, above=0, most=1)
        self.starts, self.ends = span(starts, ends)
        self.variant = choice("variant", variant, ("paper", "official"))
        self.temperature = number("temperature", temperature, above=0)
        self.bins = number("bins", bins, least=2)

    def setup(self, model: Multimodal, task: Task) -> Task:
        widths, outputs = model.sizes()
        questions, classes = asked(task, outputs, self.bins)
        self.prototypes = Prototypes(widths, questions, classes)
        self.register_buffer("edges", torch.zeros(questions, classes - 1))
        return task

    def prepare(self, run: Run) -> None:
        if not within(run.number, 0, self.ends):
            return
        rows = run.collect(
            first_batches(run.loader, self.share),
            lambda output, batch: {
                "target": batch.target,
                "features": {m: vector(z) for m, z in output.features.items()},
            },
        )
        if isinstance(run.task, Regression) and not self.prototypes.seen.any():
            self.edges.copy_(quantile_edges(rows["target"], self.bins))
        first = self.variant == "official" and run.number < 2
        labels = answers(run.task, rows["target"], self.edges)
        self.prototypes.move(rows["features"], labels, momentum=0.0 if first else self.momentum)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if not within(step.epoch, self.starts, self.ends) or self.alpha == self.mu == 0:
            return losses
        labels = answers(step.task, step.target, self.edges)
        known = self.prototypes.known(labels)
        counted = known.any(1).float()
        counted = counted / step.mean(counted).clamp(min=1e-8)  # for a mean over those that count
        logits = {
            m: self.prototypes.logits(m, vector(z)) / self.temperature
            for m, z in step.output.features.items()
        }
        errors = {m: prototype_loss(x, labels, known) for m, x in logits.items()}
        scores = step.mean({m: torch.exp(-e.detach()) * counted for m, e in errors.items()})
        slow, dominant = lags_and_leads(scores, hard=self.variant == "official")
        terms = [self.alpha * slow[m] * step.average(e * counted) for m, e in errors.items()]
        if self.variant == "paper" and step.epoch < self.entropy_epochs:
            spread = {m: step.average(entropy(x).mean(1) * counted) for m, x in logits.items()}
            terms += [-self.mu * dominant[m] * h for m, h in spread.items()]
        return losses | {"prototypes": sum_of(terms)}
