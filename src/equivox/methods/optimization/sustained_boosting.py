"""AUG: Mitigating Classification Ability Disproportion by Sustained Boosting (NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.functional.averaging import row_totals
from equivox.functional.boosting import residual_losses
from equivox.functional.discrepancy import weak_modality
from equivox.method import Batch, Method
from equivox.methods.turns import by_turns
from equivox.modules.growing import Classifiers, Growing
from equivox.task import Task

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step, Update


class SustainedBoosting(Method):
    """Train modalities by turns, and give the weak one classifiers that fit what is left over.

    With `all` the sum of a modality's classifiers, `add` the newest and `pre` the sum of those
    before, a step of that modality minimises

        l(all, y) + l(pre, y) + l(add, y - lam (y * softmax(pre))),

    or l(all, y) while it has one classifier. Every batch is one update a modality. Before an epoch,
    the modality that is behind gets a classifier (`weak_modality`). `Growing` becomes the fusion
    and answers sum_m alpha_m all_m.

    Arguments:
        lam: smoothing of the residual label; the authors search 0.1, 0.2, 0.33, 0.5 and 1.
        sigma, tau: ratio of the scores and dead zone; 1 and 0.01.
        period: epochs between checks, besides one after the first: 20 on CREMA-D, 10 on Kinetics-
            Sounds and VGGSound, 5 and 1 for text.
        capacity, hidden: most classifiers of a modality (ours), and their width; 10 and 256.
        weights: alpha of every modality; equal if None, in the code 0.4 for audio, 0.6 for video.
        residual: the softmax of the "sum" (code), or the sum of softmaxes, "sum_probs" (paper).
        alternate: False is one step of all modalities together (the paper's listing).
        train_added: False: added classifiers stay as drawn, as in effect in the released code.
        accumulation: forwards before a step: as many batches of a modality then come together.

    Departures: scores are means, and checked before an epoch. Multi-label and regression are ours.

    Source: Jiang, Huang and Yang, NeurIPS 2025, arXiv 2502.20120.

    >>> SustainedBoosting(period=10).lam
    0.5
    """

    category = "optimization"
    fidelity = "official"
    tasks = ("Classification", "MultiLabel", "Regression")
    replaces_fusion = True
    leaves_unused = True
    drops_joint = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "lam": (0.5, 0.1, 0.2, 0.33, 1.0),
        "period": (20, 10, 5, 1),
    }
    brief: ClassVar[Mapping[str, Any]] = {"period": 1, "tau": 0.0, "hidden": 8, "capacity": 3}
    exceptions: ClassVar[Mapping[str, str]] = {"equals_in_micro_batches": "needs `accumulation=2`"}
    scores: Tensor  # of this epoch so far: sums over samples, and how many

    def __init__(
        self,
        *,
        lam: float = 0.5,
        sigma: float = 1.0,
        tau: float = 0.01,
        period: int = 20,
        capacity: int = 10,
        hidden: int = 256,
        weights: Mapping[str, float] | None = None,
        residual: str = "sum",
        alternate: bool = True,
        train_added: bool = True,
        accumulation: int = 1,
    ) -> None:
        super().__init__()
        self.lam = number("lam", lam, least=0, most=1)
        self.sigma = number("sigma", sigma, above=0)
        self.tau = number("tau", tau, least=0)
        self.period = number("period", period, least=1)
        self.capacity = number("capacity", capacity, least=1)
        self.hidden = number("hidden", hidden, least=1)
        self.weights = weights
        self.residual = choice("residual", residual, ("sum", "sum_probs"))
        self.alternate = alternate
        self.train_added = train_added
        self.accumulation = number("accumulation", accumulation, least=1)

    def setup(self, model: Multimodal, task: Task) -> Task:
        model.fusion = Growing(*model.sizes(), self.capacity, self.hidden, self.weights)
        self.register_buffer("scores", torch.zeros(2, len(model.modalities)))
        return task

    def prepare(self, run: Run) -> None:
        if run.number == 1 or (run.number and run.number % self.period == 0):
            total, count = self.scores
            means = (total / count.clamp(min=1)).tolist()
            scores = dict(zip(run.model.modalities, means, strict=True))
            weak = weak_modality(scores, self.sigma, self.tau)
            if weak is not None:
                generator = torch.Generator().manual_seed(run.seed * 100_003 + run.number)
                fusion: Any = run.model.fusion
                run.forget(fusion.grow(weak, generator))
        self.scores.zero_()

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        if not self.alternate:
            return iter(batches)
        return by_turns(batches, run.model.modalities, self.accumulation)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        said: dict[str, Classifiers] = step.output.extra
        step.note("score", {m: step.score(c.all().detach()) for m, c in said.items()})
        rest = {name: loss for name, loss in losses.items() if name != "joint"}
        return rest | {m: self.boosting_loss(c, step) for m, c in said.items()}

    def boosting_loss(self, said: Classifiers, step: Step) -> Tensor:
        """What one modality minimises."""
        loss = step.loss(said.all())
        before = said.before()
        known = step.task.probabilities(before)
        if self.residual == "sum_probs":
            each = torch.stack([step.task.probabilities(z) for z in said.each])
            known = said._replace(each=each).before()
        rows = residual_losses(said.added(), known, step.target, step.task, self.lam)
        boosted = step.loss(before) + step.average(rows)
        return loss + torch.where(said.newest[0].view(()), 0, boosted)

    def gradients(self, update: Update) -> None:
        if not self.train_added:
            fusion: Any = update.model.fusion
            for parameter in fusion.later():
                parameter.grad = None

    def updated(self, update: Update) -> None:
        for modality, rows in update.rows("score").items():
            place = update.model.modalities.index(modality)
            self.scores[:, place] += torch.stack(row_totals(rows))
