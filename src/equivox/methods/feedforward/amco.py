"""AMCo: Adaptive Mask Co-optimization for Modal Dependence in Multimodal Learning (ICASSP 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.features import Feature, Features, map_tensors, values
from equivox.functional.masking import random_mask, sine_ramp
from equivox.functional.outcomes import row_means
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.task import Classification, Dense, Regression

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task


def dependence(
    logits: Mapping[str, Float[Tensor, " batch outputs *space"]], task: Task
) -> dict[str, Float[Tensor, " batch"]]:
    """Each modality's share of every sample; the shares of a sample add up to one.

    Classes: its mass in the softmax over the concatenation of all modalities' logits. Labels and
    numbers: its part in the sum of |z_m|; equal parts where all are zero.
    """
    if isinstance(task, (Classification, Dense)):
        z = torch.stack([x.detach().float() for x in logits.values()], 1)  # (batch, modalities, …)
        mass = z.flatten(1, 2).softmax(1).view_as(z).sum(2)
    else:
        sizes = [row_means(x.detach().float().abs()) for x in logits.values()]
        size = torch.stack(sizes, 1)
        total = size.sum(1, keepdim=True)
        mass = torch.where(total > 0, size / total.where(total > 0, 1), 1 / len(logits))
    return {m: row_means(part) for m, part in zip(logits, mass.unbind(1), strict=True)}


def dependent(shares: Float[Tensor, " modalities"], sigma: float) -> Bool[Tensor, " modalities"]:
    """share_m > sigma; never all modalities: then the one with the smallest share is not.

    >>> dependent(torch.tensor([0.694, 0.306]), sigma=0.5)
    tensor([ True, False])
    """
    flags = shares > sigma
    smallest = torch.arange(len(shares), device=shares.device) == shares.argmin()
    return flags & ~(flags.all() & smallest)


class AMCo(Method):
    """Mask the modality that the prediction depends on, ever more, and train every one alone too.

    A reconstruction: the schedule, threshold and unimodal losses follow BalanceBenchmark; that the
    mask hits features (as the abstract says), and what progress is, are our reading.

    A modality is dependent where its share of the softmax over all modalities' logits exceeded
    sigma on the batch before. int(p D) random entries of its feature are zero in the fusion, with
    p = sin(pi / 2 min(epsilon, l) / epsilon) and l the progress of the training. The loss is
    L(z masked) + sum_m L(z_m), with unmasked z_m. No flag at an epoch's first batch; no mask at
    prediction.

    Arguments:
        sigma: threshold of the share; 0.5. With M > 2 modalities try 1.5 / M.
        epsilon: progress at which the mask is complete; 0.3.
        epochs: of the training, for l = (epoch + part of the epoch) / epochs.
        p_max: largest p; 1.
        unimodal: weight of each unimodal loss; 1.
        mask_on: "feature", or "logit", the released toolkit's: entries of the modality's share.
        progress: "training", or "benchmark": l = epoch / 10 times the batch's number, so that the
            first epoch is never masked and later ones are within a few batches.
        starts, ends: first and last epoch, counted from 0, in which it acts; else the joint loss.

    Departures: labels and numbers take |z_m| for the share. Regression gets heads of its own, since
    shares of one sum cannot all equal the target; a fusion that learned to answer with one modality
    masked still overshoots when it is not. At least one modality is never masked. The
    toolkit's extra linear layer on the logits is left out.

    Source: Zhou et al., ICASSP 2023.

    >>> AMCo(epochs=15)
    AMCo(sigma=0.5, epsilon=0.3, epochs=15, p_max=1.0, unimodal=1.0, mask_on='feature', ...)
    """

    category = "feed-forward"
    fidelity = "reconstruction"
    ingredients: ClassVar[frozenset[str]] = frozenset({"unimodal losses"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "epsilon": (0.3, 0.1, 0.6),
        "p_max": (1.0, 0.5),
        "sigma": (0.5, 0.4, 0.6),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"p_max": 0.0, "unimodal": 0.0}
    brief: ClassVar[Mapping[str, Any]] = {"epochs": 2, "epsilon": 0.5}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "Flags and masks are those of every forward's own batch.",
    }

    flags: Tensor
    batches: Tensor
    done: Tensor

    def __init__(
        self,
        *,
        sigma: float = 0.5,
        epsilon: float = 0.3,
        epochs: int = 80,
        p_max: float = 1.0,
        unimodal: float = 1.0,
        mask_on: str = "feature",
        progress: str = "training",
        starts: int = 0,
        ends: int | None = None,
    ) -> None:
        super().__init__()
        if epsilon <= 0 or epochs < 1 or unimodal < 0 or not 0 <= p_max <= 1:
            raise ValueError(
                "`epsilon` and `epochs` should be positive, `unimodal` zero or more and `p_max` in "
                f"[0, 1]. Found {epsilon}, {epochs}, {unimodal} and {p_max}."
            )
        if mask_on not in ("feature", "logit"):
            raise ValueError(f'`mask_on` should be "feature" or "logit". Found `{mask_on!r}`.')
        if progress not in ("training", "benchmark"):
            raise ValueError(f'`progress` should be "training" or "benchmark". Found {progress!r}.')
        self.sigma = sigma
        self.epsilon = epsilon
        self.epochs = epochs
        self.p_max = p_max
        self.unimodal = unimodal
        self.mask_on = mask_on
        self.progress = progress
        self.starts = starts
        self.ends = ends

    def setup(self, model: Multimodal, task: Task) -> Task:
        if self.mask_on == "logit" and not hasattr(model.fusion, "unimodal"):
            raise ValueError(
                "A mask on logits needs a fusion that adds up the modalities' logits. Found "
                f'`{type(model.fusion).__name__}`. Use `mask_on="feature"`.'
            )
        if isinstance(task, Regression) and self.unimodal:
            model.add_heads()
        self.register_buffer("flags", torch.zeros(len(model.modalities), dtype=torch.bool))
        self.register_buffer("batches", torch.ones((), dtype=torch.float64))
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))
        return task

    def prepare(self, run: Run) -> None:
        self.flags.zero_()
        self.done.zero_()
        loader = run.loader
        self.batches.fill_(max(1, len(loader)) if isinstance(loader, Sized) else torch.inf)

    def features(self, features: Features, step: Step) -> Features:
        if not self._acts(step.epoch):
            return features
        p = self.p_max * sine_ramp(self._progress(step), self.epsilon)
        pool = getattr(step.model.fusion, "pool", True)
        masked = dict(features)
        for number, modality in enumerate(step.model.modalities):
            if modality not in features:
                continue
            mask = self._mask(features[modality], p, pool, step)
            kept = mask | ~self.flags[number]
            if self.mask_on == "feature":
                masked[modality] = _masked(features[modality], kept, pool)
            step.notes[f"amco {modality}"] = kept
        self.done += 1
        return masked

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if not self._acts(step.epoch):
            return losses
        shares = step.output.split
        if self.mask_on == "logit":
            hidden = [_hidden(z, step.notes[f"amco {m}"]) for m, z in shares.items()]
            losses = losses | {"joint": step.loss(step.output.logits - sum_of(hidden))}
        if self.unimodal:
            alone = step.output.unimodal
            losses = losses | {m: self.unimodal * step.loss(z) for m, z in alone.items()}
        self._flag(shares, step)
        return losses

    def _flag(self, shares: Mapping[str, Tensor], step: Step) -> None:
        """Who is masked at the next step."""
        means = step.mean(dependence(shares, step.task))
        flags = dependent(torch.stack(list(means.values())), self.sigma)
        self.flags.zero_()
        self.flags[[step.model.modalities.index(m) for m in means]] = flags

    def _progress(self, step: Step) -> Tensor:
        if self.progress == "benchmark":
            return self.done * (step.epoch / 10)
        return (step.epoch + self.done / self.batches) / self.epochs

    def _mask(self, feature: Feature, p: Tensor, pool: bool, step: Step) -> Tensor:
        if self.mask_on == "logit":
            width = step.model.outputs or 1
        else:
            x = values(feature)
            width = x.shape[_channels(x, pool)] if x.ndim > 1 else 1
        return random_mask(step.uniform(width), p)

    def _acts(self, epoch: int) -> bool:
        return self.starts <= epoch and (self.ends is None or epoch <= self.ends)


def _channels(x: Tensor, pool: bool) -> int:
    """Where a feature's channels are: last in (batch, time, channels), else behind the batch."""
    return 2 if pool and x.ndim == 3 else 1


def _along(kept: Tensor, x: Tensor, pool: bool) -> Tensor:
    shape = [1] * x.ndim
    if x.ndim > 1:
        shape[_channels(x, pool)] = -1
    return kept.view(shape)


def _masked(feature: Feature, kept: Tensor, pool: bool) -> Feature:
    main = values(feature)
    cut = torch.where(_along(kept, main, pool), main, 0)
    return map_tensors(lambda x: cut if x is main else x, feature)


def _hidden(logits: Tensor, kept: Tensor) -> Tensor:
    """What the mask takes away of a share."""
    return torch.where(_along(kept, logits, pool=False), 0, logits)
