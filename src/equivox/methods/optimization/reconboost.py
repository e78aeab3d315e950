"""ReconBoost: Boosting Can Achieve Modality Reconcilement (ICML 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import number
from equivox.functional.boosting import boosting_losses
from equivox.fusion import sum_of
from equivox.method import Batch, Method
from equivox.methods.turns import share_head
from equivox.task import Regression, Task

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step


class ReconBoost(Method):
    """Boost one modality at a time on what the others miss, then rectify all of them jointly.

    The prediction is beta sum_m f_m, one head shared by all modalities and a learnable beta. Stage
    s trains modality k = order[s mod M] for `modality_epochs`, the others serving in eval mode:

        L = mean of -(w1 - w2 q_y) log p_y / K  +  alpha MSE(softmax f_k, softmax f_prev),

    with the constants q, softmax of beta sum_{m != k} f_m, and f_prev of the stage before; then
    everything for `joint_epochs` with the task's loss of the sum. Only modalities that had a stage
    take part, in prediction too. Each phase forgets all momentum.

    Arguments:
        w1, w2: 5 and 1 on CREMA-D, 4 and 1 on AVE and ModelNet40, 1 and 0.25 for sentiment.
        alpha: weight of the agreement term; the paper uses 0.5.
        modality_epochs, joint_epochs: the paper uses 4 and 4; 1 and 1 is a fast choice.
        hidden: width of the shared head's inner layer; None is a linear head (sentiment).
        order: of the modalities; None is the model's.
        pretrained: the encoders were trained alone before, so all take part from the start.
        initial_agreement: q_y of a first stage without others; the released code has 1 by accident.
        mcr_detach_both: the released code, where the agreement term has no gradient.

    Departures: the head is shared from the start; regression has no agreement term.

    Source: Hua et al., ICML 2024, Eq. 7-12.

    >>> ReconBoost(hidden=None).alpha
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
        "w1": (5.0, 4.0, 1.0),
        "alpha": (0.5, 0.0, 1.0),
        "modality_epochs": (4, 1),
        "joint_epochs": (4, 1),
    }
    brief: ClassVar[Mapping[str, Any]] = {"modality_epochs": 1, "hidden": 8, "pretrained": True}
    added: Tensor  # how many modalities take part

    def __init__(
        self,
        *,
        w1: float = 5.0,
        w2: float = 1.0,
        alpha: float = 0.5,
        modality_epochs: int = 4,
        joint_epochs: int = 4,
        hidden: int | None = 256,
        order: Sequence[str] | None = None,
        pretrained: bool = False,
        initial_agreement: float = 0.0,
        mcr_detach_both: bool = False,
    ) -> None:
        super().__init__()
        self.w1 = number("w1", w1, above=0)
        self.w2 = number("w2", w2, least=0, most=w1)
        self.alpha = number("alpha", alpha, least=0)
        self.modality_epochs = number("modality_epochs", modality_epochs, least=1)
        self.joint_epochs = number("joint_epochs", joint_epochs, least=0)
        self.hidden = hidden
        self.order = order
        self.pretrained = pretrained
        self.initial_agreement = initial_agreement
        self.mcr_detach_both = mcr_detach_both

    def setup(self, model: Multimodal, task: Task) -> Task:
        names = list(model.modalities)
        self.sequence = tuple(self.order or names)
        if sorted(self.sequence) != sorted(names):
            raise ValueError(f"`order` should hold each of {names} once. Found {self.order}.")
        share_head(model, self.hidden, boost=True)
        self.register_buffer("added", torch.tensor(len(names) if self.pretrained else 1))
        return task

    def stage(self, epoch: int) -> tuple[int, str | None]:
        """The stage of an epoch, and the modality that it trains, None in a joint phase."""
        stage, past = divmod(epoch, self.modality_epochs + self.joint_epochs)
        learner = self.sequence[stage % len(self.sequence)]
        return stage, learner if past < self.modality_epochs else None

    def prepare(self, run: Run) -> None:
        stage = self.stage(run.number)
        self.added.clamp_(min=min(stage[0] + 1, len(self.sequence)))
        if stage != self.stage(run.number - 1):
            run.forget(run.model.parameters())

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        _, learner = self.stage(run.number)
        added = self.sequence[: int(self.added)]
        for batch in batches:
            if learner is None:
                yield batch.only(*added)
            elif learner in batch.inputs:
                yield batch.only(*added).with_(learn={learner})

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        stage, learner = self.stage(step.epoch)
        if learner is None:
            return losses
        rest = {name: loss for name, loss in losses.items() if name != "joint"}
        return rest | {learner: self._fit(learner, step)} | self._agreement(stage, learner, step)

    def predict(self, output: Output) -> Tensor:
        fusion: Any = output.model.fusion
        joined = {m: self.added > self.sequence.index(m) for m in output.split}
        return fusion.boost * sum_of(torch.where(joined[m], f, 0) for m, f in output.split.items())

    def _fit(self, learner: str, step: Step) -> Tensor:
        fusion: Any = step.model.fusion
        said, weights = step.output.split, (self.w1, self.w2, self.initial_agreement)
        others = [f.detach() for m, f in said.items() if m != learner]
        phi = fusion.boost.detach() * sum_of(others) if others else None
        return step.average(boosting_losses(said[learner], phi, step.target, step.task, *weights))

    def _agreement(self, stage: int, learner: str, step: Step) -> dict[str, Tensor]:
        said, task = step.output.split, step.task
        previous = self.sequence[(stage - 1) % len(self.sequence)]
        if stage == 0 or previous not in said or isinstance(task, Regression):
            return {}
        p, q = task.probabilities(said[learner]), task.probabilities(said[previous]).detach()
        p = p.detach() if self.mcr_detach_both else p
        return {"agreement": self.alpha * step.average((p - q).square().mean(-1))}
