"""PMR: Prototypical Modal Rebalance for Multimodal Learning (CVPR 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.features import vector
from equivox.functional import class_means, entropy, mean_of_others, prototype_logits
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.task import Classification, MultiLabel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from equivox.features import Feature
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task


def pmr_coefficients(
    scores: Mapping[str, Float[Tensor, ""]], variant: str = "paper"
) -> tuple[dict[str, Float[Tensor, ""]], dict[str, Float[Tensor, ""]]]:
    """How much each modality is slow, and how much it is dominant, both in [0, 1].

    With rho_m = S_m / mean over the others j of S_j: clip(1 / rho_m - 1, 0, 1) and
    clip(rho_m - 1, 0, 1). `variant="official"`: slow is one where rho_m < 1, dominant always zero.

    >>> slow, dominant = pmr_coefficients({"a": torch.tensor(1.2), "v": torch.tensor(1.0)})
    >>> slow["v"], dominant["a"], slow["a"]
    (tensor(0.2000), tensor(0.2000), tensor(0.))
    """
    others = mean_of_others(scores)
    if variant == "official":
        slow = {m: (s < others[m]).to(s.dtype) for m, s in scores.items()}
        return slow, {m: torch.zeros_like(s) for m, s in scores.items()}
    return (
        {m: _lead(others[m], s) for m, s in scores.items()},
        {m: _lead(s, others[m]) for m, s in scores.items()},
    )


def _lead(score: Tensor, other: Tensor) -> Tensor:
    return (score / other.clamp(min=torch.finfo(other.dtype).tiny) - 1).clamp(0, 1)


def moved_prototypes(
    old: Float[Tensor, "classes features"],
    new: Float[Tensor, "classes features"],
    seen: Bool[Tensor, " classes"],
    found: Bool[Tensor, " classes"],
    momentum: float,
) -> Float[Tensor, "classes features"]:
    """momentum old + (1 - momentum) new; the first ones are `new`, classes not found keep theirs.

    >>> one, yes = torch.ones(1, 1), torch.tensor([True])
    >>> moved_prototypes(one, 2 * one, seen=yes, found=yes, momentum=0.2)
    tensor([[1.8000]])
    """
    mixed = torch.where(seen[:, None], momentum * old + (1 - momentum) * new, new)
    return torch.where(found[:, None], mixed, old)


class PMR(Method):
    """Push the slow modality with a prototype classifier, hold the dominant one back by entropy.

    c_k^m is the mean feature of class k, p^m the softmax of the negative Euclidean distances to
    them, S_m the mean of p^m at the true class. The loss gains alpha sum_m slow_m CE(p^m) and, in
    the first epochs, -mu sum_m dominant_m H(p^m); see `pmr_coefficients`. Works on features alone.

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

    Departures: a class without samples keeps its prototype (the code makes it NaN); until there is
    one, its samples count in neither term. Prototypes always come from training data. More than two
    modalities: rho against the mean of the others. A multi-label task has a pair of prototypes for
    each label.

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
    seen: Tensor
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
        if alpha < 0 or mu < 0:
            raise ValueError(f"`alpha` and `mu` should be zero or more. Found {alpha} and {mu}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` should lie in [0, 1). Found `momentum = {momentum}`.")
        if not 0 < share <= 1:
            raise ValueError(f"`share` should lie in (0, 1]. Found `share = {share}`.")
        if variant not in ("paper", "official"):
            raise ValueError(f'`variant` should be "paper" or "official". Found `{variant!r}`.')
        if temperature <= 0 or bins < 2:
            raise ValueError(
                "`temperature` should be positive and `bins` at least 2. "
                f"Found `temperature = {temperature}` and `bins = {bins}`."
            )
        self.alpha = alpha
        self.mu = mu
        self.entropy_epochs = entropy_epochs
        self.momentum = momentum
        self.share = share
        self.starts = starts
        self.ends = ends
        self.variant = variant
        self.temperature = temperature
        self.bins = bins

    def setup(self, model: Multimodal, task: Task) -> Task:
        if not model.widths or not model.outputs:
            raise ValueError(
                "`PMR` needs the features' widths and the number of outputs. Found a fusion that "
                "does not declare them. Pass `Multimodal(..., example=inputs)` with a small batch."
            )
        columns, classes = self._questions(task, model.outputs)
        self.register_buffer("seen", torch.zeros(columns, classes, dtype=torch.bool))
        self.register_buffer("edges", torch.zeros(columns, classes - 1))
        for modality, width in model.widths.items():
            self.register_buffer(f"prototypes_{modality}", torch.zeros(columns * classes, width))
        return task

    def prepare(self, run: Run) -> None:
        if self.ends is not None and run.number > self.ends:
            return
        rows = run.collect(
            first_batches(run.loader, self.share),
            lambda output, batch: {
                "target": batch.target,
                "features": {m: vector(z) for m, z in output.features.items()},
            },
        )
        if not isinstance(run.task, (Classification, MultiLabel)):
            self._bin(rows["target"])
        self._move(rows["features"], self._labels(run.task, rows["target"]), run.number)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        late = self.ends is not None and step.epoch > self.ends
        if late or step.epoch < self.starts or self.alpha == self.mu == 0:
            return losses
        labels = self._labels(step.task, step.target)
        known = self.seen[torch.arange(len(self.seen), device=labels.device), labels]
        weight = known.any(1).float() * (1 if step.weight is None else step.weight)
        logits = {m: self._logits(m, step.output.features[m]) for m in step.modalities}
        errors = {m: prototype_loss(x, labels, known) for m, x in logits.items()}
        scores = step.mean({m: torch.exp(-e.detach()) * known.any(1) for m, e in errors.items()})
        slow, dominant = pmr_coefficients(scores, self.variant)
        terms = [self.alpha * slow[m] * _mean(e, weight) for m, e in errors.items()]
        if self.variant == "paper" and step.epoch < self.entropy_epochs:
            spread = {m: _mean(entropy(x).mean(1), weight) for m, x in logits.items()}
            terms += [-self.mu * dominant[m] * h for m, h in spread.items()]
        return losses | {"prototypes": sum_of(terms)}

    def _questions(self, task: Task, outputs: int) -> tuple[int, int]:
        """How many questions are asked of a sample, and how many answers each has."""
        if isinstance(task, Classification):
            return 1, outputs
        return outputs, 2 if isinstance(task, MultiLabel) else self.bins

    def _labels(self, task: Task, target: Tensor) -> Int[Tensor, "batch questions"]:
        if isinstance(task, Classification):
            return (target if target.ndim == 1 else target.argmax(-1))[:, None]
        if isinstance(task, MultiLabel):
            return (target > 0.5).long()
        return (target.reshape(len(target), -1, 1) > self.edges).sum(-1)

    def _bin(self, target: Tensor) -> None:
        """Fix the bins of a regression target, the first time."""
        inner = torch.linspace(0, 1, self.edges.shape[1] + 2, device=target.device)[1:-1]
        found = torch.quantile(target.float().reshape(len(target), -1), inner, dim=0).T
        self.edges.copy_(torch.where(self.seen.any(), self.edges, found))

    def _move(self, features: Mapping[str, Tensor], labels: Tensor, epoch: int) -> None:
        columns, classes = self.seen.shape
        flat = (labels + classes * torch.arange(columns, device=labels.device)).flatten()
        first = self.variant == "official" and epoch < 2
        seen = torch.zeros_like(self.seen) if first else self.seen
        for modality, z in features.items():
            sums, counts = class_means(z.repeat_interleave(columns, 0), flat, columns * classes)
            old, new = self._prototypes(modality), sums / counts.clamp(min=1)[:, None]
            found = counts > 0
            old.copy_(moved_prototypes(old, new, seen.flatten(), found, self.momentum))
        self.seen |= found.view_as(self.seen)

    def _prototypes(self, modality: str) -> Tensor:
        return self.get_buffer(f"prototypes_{modality}")

    def _logits(self, modality: str, feature: Feature) -> Float[Tensor, "batch questions classes"]:
        logits = prototype_logits(vector(feature), self._prototypes(modality), self.seen.flatten())
        return logits.view(-1, *self.seen.shape) / self.temperature


def first_batches(loader: Iterable[Any], share: float) -> Iterable[Any]:
    """The first batches of a loader, at least one; all where it does not say how many it has."""
    if not isinstance(loader, Sized):
        return loader
    return islice(loader, max(1, int(len(loader) * share + 1e-9)))


def prototype_loss(
    logits: Float[Tensor, "batch questions classes"],
    labels: Int[Tensor, "batch questions"],
    known: Bool[Tensor, "batch questions"],
) -> Float[Tensor, " batch"]:
    """The cross-entropy of each sample, averaged over the questions whose answer is known."""
    asked = labels.masked_fill(~known, -100)
    errors = F.cross_entropy(logits.mT, asked, reduction="none", ignore_index=-100)
    return errors.sum(1) / known.sum(1).clamp(min=1)


def _mean(rows: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum()
    return (rows * weight).sum() / torch.where(total > 0, total, 1)
