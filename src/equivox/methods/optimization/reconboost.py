"""ReconBoost: Boosting Can Achieve Modality Reconcilement (ICML 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.fusion import SharedHead, sum_of
from equivox.method import Batch, Method
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task


def boosting_loss(
    logits: Float[Tensor, "batch outputs"],
    others: Float[Tensor, "batch outputs"],
    target: Any,
    task: Task,
    w1: float = 5.0,
    w2: float = 1.0,
) -> Float[Tensor, " batch"]:
    """L_boost of every sample: small weights for what the other learners solve already.

    Classification: -(w1 - w2 q_y) log p_y / K, with p and q the softmax of `logits` and `others`.
    Multi-label: the same for every label, averaged over labels. Regression: the loss against
    Friedman's residual y - (w2 / w1) `others`.

    :param logits: f_k of the learner that is trained.
    :param others: The summed logits of the other learners, a constant.

    >>> from equivox import Classification
    >>> f, phi = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    >>> boosting_loss(f, phi, torch.tensor([0]), Classification())
    tensor([0.8801])
    """
    others = others.detach()
    if isinstance(task, Regression):
        return task.loss(logits, target - w2 / w1 * others.view_as(target), reduction="none")
    if isinstance(task, MultiLabel):
        q = torch.where(target > 0.5, others.sigmoid(), 1 - others.sigmoid())
        each = F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none")
        return ((w1 - w2 * q) * each).mean(-1)
    q = task.score(others, target)
    return (w1 - w2 * q) * task.loss(logits, target, reduction="none") / logits.shape[-1]


class ReconBoost(Method):
    """Boost one modality at a time on what the others miss, then rectify all of them jointly.

    The prediction is beta sum_m f_m, one head shared by all modalities and a learnable beta. Stage
    s trains modality k = order[s mod M] for `modality_epochs`, the others serving in eval mode:

        L = mean of -(w1 - w2 q_y) log p_y / K  +  alpha MSE(softmax f_k, softmax f_prev),

    with q the softmax of beta sum_{m != k} f_m and f_prev the modality of the stage before, both
    constants; then everything for `joint_epochs` with the task's loss of the sum. Only modalities
    that had a stage take part, in training and prediction. Each phase forgets all momentum.

    Arguments:
        w1, w2: 5 and 1 on CREMA-D, 4 and 1 on AVE and ModelNet40, 1 and 0.25 for sentiment.
        alpha: weight of the agreement term; the paper uses 0.5.
        modality_epochs, joint_epochs: the paper uses 4 and 4; 1 and 1 is a fast choice.
        hidden: width of the shared head's inner layer; None is a linear head (sentiment).
        order: of the modalities; None is the model's.
        pretrained: the encoders were trained alone before, so all take part from the start.
        initial_agreement: q_y of a first stage without others; the released code has 1 by accident.
        mcr_detach_both: the released code, where the agreement term has no gradient.

    Departures: the head is shared from the start. The agreement of multi-label tasks is of the
    sigmoids; regression has none, as unbounded predictions that follow each other diverge.

    Source: Hua et al., ICML 2024, Eq. 7-12.

    >>> ReconBoost(hidden=None).alpha
    0.5
    """

    category = "optimization"
    tasks = ("Classification", "MultiLabel", "Regression")
    replaces_fusion = True
    leaves_unused = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "w1": (5.0, 4.0, 1.0),
        "alpha": (0.5, 0.0, 1.0),
        "modality_epochs": (4, 1),
        "joint_epochs": (4, 1),
    }
    brief: ClassVar[Mapping[str, Any]] = {
        "modality_epochs": 1,
        "joint_epochs": 1,
        "hidden": 8,
        "pretrained": True,
    }
    added: Tensor

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
        if not 0 <= w2 <= w1 or w1 == 0:
            raise ValueError(f"`w1` should be positive and `w2` in 0 … w1. Found {w1} and {w2}.")
        if alpha < 0:
            raise ValueError(f"`alpha` should be zero or more. Found `alpha = {alpha}`.")
        if modality_epochs < 1 or joint_epochs < 0:
            raise ValueError(
                "`modality_epochs` should be one or more, `joint_epochs` zero or more. "
                f"Found {modality_epochs} and {joint_epochs}."
            )
        self.w1 = w1
        self.w2 = w2
        self.alpha = alpha
        self.modality_epochs = modality_epochs
        self.joint_epochs = joint_epochs
        self.hidden = hidden
        self.order = order
        self.pretrained = pretrained
        self.initial_agreement = initial_agreement
        self.mcr_detach_both = mcr_detach_both

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.sequence = tuple(self.order or model.modalities)
        if set(self.sequence) != set(model.modalities):
            raise ValueError(
                f"`order` should name the modalities {sorted(model.modalities)}, each once. "
                f"Found {list(self.sequence)}."
            )
        if not isinstance(model.fusion, SharedHead) or model.fusion.boost is None:
            model.require("widths", "outputs")
            model.fusion = SharedHead(
                model.widths, model.outputs or 1, hidden=self.hidden, boost=True
            )
        self.register_buffer("added", torch.tensor(len(self._added(0))))
        return task

    def stage(self, epoch: int) -> tuple[int, str | None]:
        """The stage of an epoch, and the modality that it trains, None in a joint phase."""
        stage, place = divmod(epoch, self.modality_epochs + self.joint_epochs)
        alone = place < self.modality_epochs
        return stage, self.sequence[stage % len(self.sequence)] if alone else None

    def prepare(self, run: Run) -> None:
        self.added.fill_(len(self._added(run.number)))
        if run.number == 0 or self.stage(run.number) != self.stage(run.number - 1):
            run.forget(run.model.parameters())

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        _, learner = self.stage(run.number)
        added = self._added(run.number)
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
        return rest | {learner: self._boosting(learner, step)} | self._agreement(stage, step)

    def predict(self, output: Output) -> Tensor:
        share, fusion = output.split, _fusion(output.model)
        takes_part = [self.added > self.sequence.index(m) for m in share]
        said = zip(takes_part, share.values(), strict=True)
        total = sum_of(torch.where(there, f, torch.zeros_like(f)) for there, f in said)
        return fusion.boost * total

    def _added(self, epoch: int) -> tuple[str, ...]:
        """The modalities that take part: all, or those that have had a stage."""
        return self.sequence if self.pretrained else self.sequence[: self.stage(epoch)[0] + 1]

    def _boosting(self, learner: str, step: Step) -> Tensor:
        said = step.output.split
        others = [f.detach() for m, f in said.items() if m != learner]
        if others:
            phi = _fusion(step.model).boost.detach() * sum_of(others)
            return self._mean(said[learner], phi, self.w1, self.w2, step)
        first = self.w1 - self.w2 * self.initial_agreement
        return self._mean(said[learner], said[learner], first, 0.0, step)

    def _mean(self, f: Tensor, phi: Tensor, w1: float, w2: float, step: Step) -> Tensor:
        return step.average(boosting_loss(f, phi, step.target, step.task, w1, w2))

    def _agreement(self, stage: int, step: Step) -> dict[str, Tensor]:
        said, order = step.output.split, self.sequence
        learner, previous = order[stage % len(order)], order[(stage - 1) % len(order)]
        if stage == 0 or previous == learner or previous not in said:
            return {}
        if isinstance(step.task, Regression):  # it would undo the fit of the residual
            return {}
        p = step.task.probabilities(said[learner])
        p = p.detach() if self.mcr_detach_both else p
        q = step.task.probabilities(said[previous]).detach()
        return {"agreement": self.alpha * step.average((p - q).square().mean(-1))}


def _fusion(model: Multimodal) -> Any:
    return model.fusion
