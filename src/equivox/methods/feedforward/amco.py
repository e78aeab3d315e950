"""AMCo: Adaptive Mask Co-optimization for Modal Dependence in Multimodal Learning (ICASSP 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number, span
from equivox.functional.dependence import dependence, dependent
from equivox.functional.masking import channels, mask_channels, random_mask, sine_ramp
from equivox.functional.schedules import within
from equivox.fusion import additive, sum_of
from equivox.method import Method
from equivox.task import Regression

if TYPE_CHECKING:
    from equivox.features import Features
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task


class AMCo(Method):
    """Mask the modality that the prediction depends on, ever more, and train every one alone too.

    A modality is dependent where its share of the softmax over all modalities' logits exceeded
    sigma on the batch before; never all are, and none at an epoch's first batch. int(p D) random
    entries of its feature are zero in the fusion, with p = sin(pi / 2 min(epsilon, l) / epsilon)
    and l the progress of the training. The loss is L(z masked) + sum_m L(z_m), with unmasked z_m.

    Arguments:
        sigma: threshold of the share; 0.5. With M > 2 modalities try 1.5 / M.
        epsilon: progress at which the mask is complete; 0.3.
        epochs: of the training, for l = (epoch + part of the epoch) / epochs.
        p_max: largest p; 1.
        unimodal: weight of each unimodal loss; 1.
        mask_on: "feature", or "logit", the released toolkit's: entries of the modality's share.
        progress: "training", or "benchmark", the toolkit's: l = epoch / 10 * number of the batch.
        starts, ends: first and last epoch, counted from 0, in which it acts; else the joint loss.

    A reconstruction: schedule, threshold and unimodal losses follow BalanceBenchmark; masks on
    features (as in the abstract) and the progress are our reading. Labels and numbers take |z_m| as
    share. Regression gets heads of its own: shares of one sum cannot all equal the target.

    Source: Zhou et al., ICASSP 2023.

    >>> AMCo(epochs=15)
    AMCo(sigma=0.5, epsilon=0.3, epochs=15, p_max=1.0, unimodal=1.0, mask_on='feature', ...)
    """

    category = "feed-forward"
    fidelity = "reconstruction"
    ingredients = frozenset({"unimodal losses"})
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
        self.sigma = sigma
        self.epsilon = number("epsilon", epsilon, above=0)
        self.epochs = number("epochs", epochs, least=1)
        self.p_max = number("p_max", p_max, least=0, most=1)
        self.unimodal = number("unimodal", unimodal, least=0)
        self.mask_on = choice("mask_on", mask_on, ("feature", "logit"))
        self.progress = choice("progress", progress, ("training", "benchmark"))
        self.starts, self.ends = span(starts, ends)

    def setup(self, model: Multimodal, task: Task) -> Task:
        if self.mask_on == "logit" and not additive(model.fusion):
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
        self.batches.fill_(run.length or torch.inf)

    def features(self, features: Features, step: Step) -> Features:
        if self.mask_on == "logit" or not within(step.epoch, self.starts, self.ends):
            return features
        pool = getattr(step.model.fusion, "pool", True)
        kept = self._kept({m: channels(z, pool) for m, z in features.items()}, step)
        return {m: mask_channels(z, kept[m], pool) for m, z in features.items()}

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if not within(step.epoch, self.starts, self.ends):
            return losses
        shares = step.output.split
        if self.mask_on == "logit":
            kept = self._kept({m: channels(z, pool=False) for m, z in shares.items()}, step)
            hidden = [mask_channels(z, ~kept[m], pool=False) for m, z in shares.items()]
            losses = losses | {"joint": step.loss(step.output.logits - sum_of(hidden))}
        self._flag(shares, step)
        alone = step.output.unimodal if self.unimodal else {}
        return losses | {m: self.unimodal * step.loss(z) for m, z in alone.items()}

    def _kept(self, widths: Mapping[str, int], step: Step) -> dict[str, Tensor]:
        """The channels of each modality that stay: all of them where it has no flag."""
        p = self.p_max * sine_ramp(self._progress(step), self.epsilon)
        self.done += 1
        flags = dict(zip(step.model.modalities, self.flags, strict=True))
        return {m: random_mask(step.uniform(n), p) | ~flags[m] for m, n in widths.items()}

    def _progress(self, step: Step) -> Tensor:
        if self.progress == "benchmark":
            return self.done * (step.epoch / 10)
        return (step.epoch + self.done / self.batches) / self.epochs

    def _flag(self, shares: Mapping[str, Tensor], step: Step) -> None:
        """Who is masked at the next step."""
        means = step.mean(dependence(shares, step.task))
        flags = dict.fromkeys(step.model.modalities, torch.zeros_like(self.flags[0]))
        flags |= zip(means, dependent(torch.stack(list(means.values())), self.sigma), strict=True)
        self.flags.copy_(torch.stack(list(flags.values())))
