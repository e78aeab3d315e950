"""DynCIM: Dynamic Curriculum for Imbalanced Multimodal Learning (arXiv 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from equivox.arguments import number
from equivox.distributed import rank, summed, world
from equivox.functional.curriculum import curriculum_weights, sample_metrics
from equivox.functional.gating import geometric_mean_ratio, harmonic_mean_rate, modality_gates
from equivox.method import Method
from equivox.modules.gated_features import GatedFeatures
from equivox.modules.running import RunningMoments

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.step import Step, Update
    from equivox.task import Task


class DynCIM(Method):
    """A reconstruction: weight samples from easy to hard, and gate modalities in the fusion.

    The paper names metrics of samples and of modalities; no code is out, and all formulas are ours:

        L = mean of w_i [l(z_i) + gamma sum_m G_m l(z_m,i)],
        w = exp(-(1 - 2 pi) eta (D - mean D)) within [0.1, 10], over its mean,

    with the task's loss l, the fused logits z, those of linear heads z_m, and pi = epoch /
    `curriculum`, at most 1. D averages `sample_metrics`, each over its maximum in the batch, with
    weights softmax(-sqrt(variance over time)). The gates G, which multiply the features, also in
    prediction, are running means of `modality_gates`; the card has their rates and their balance.

    Arguments (no value of the paper's is known):
        eta: sharpness of the samples' weights.
        curriculum: epochs until hard samples weigh most: the length of your training.
        temperature: of the gates.
        gamma: weight of the unimodal losses.
        beta: decay of all running means.
        warmup: epochs in which weights and gates are one.

    Source: Qian et al., arXiv 2503.06456.

    >>> DynCIM(curriculum=30)  # doctest: +ELLIPSIS
    DynCIM(eta=1.0, curriculum=30, temperature=0.5, gamma=1.0, beta=0.9, warmup=1)
    """

    category = "data"
    fidelity = "reconstruction"
    heads = "own"
    replaces_fusion = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "eta": (1.0, 0.5, 2.0),
        "temperature": (0.5, 0.2, 1.0),
        "gamma": (1.0, 0.5, 2.0),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"gamma": 0.0, "warmup": 1000}
    brief: ClassVar[Mapping[str, Any]] = {"curriculum": 1, "warmup": 0}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "samples are compared within their micro-batch"
    }

    def __init__(
        self,
        *,
        eta: float = 1.0,
        curriculum: int = 100,
        temperature: float = 0.5,
        gamma: float = 1.0,
        beta: float = 0.9,
        warmup: int = 1,
    ) -> None:
        super().__init__()
        self.eta = number("eta", eta, least=0)
        self.curriculum = number("curriculum", curriculum, above=0)
        self.temperature = number("temperature", temperature, above=0)
        self.gamma = number("gamma", gamma, least=0)
        self.beta = number("beta", beta, least=0, below=1)
        self.warmup = number("warmup", warmup, least=0)
        self.leaves_unused = gamma == 0

    def setup(self, model: Multimodal, task: Task) -> Task:
        model.fusion = GatedFeatures(model.fusion, model.modalities)
        self.metrics = RunningMoments((3,), self.beta)
        self.past_losses = RunningMoments((len(model.modalities),), self.beta)
        self.past_rate = RunningMoments((), self.beta)
        return task

    def slope(self, epoch: int) -> float:
        """(1 - 2 pi) eta: positive while easy samples come first, zero in the warm-up."""
        progress = min(epoch / self.curriculum, 1.0)
        return 0.0 if epoch < self.warmup else (1 - 2 * progress) * self.eta

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        with torch.no_grad():
            self._weigh(step.output.unimodal, step)
        terms = {"joint": step.loss(step.output.logits)} if self.slope(step.epoch) else {}
        gates = cast(GatedFeatures, step.model.fusion).gates()
        alone = step.output.unimodal if self.gamma else {}
        return losses | terms | {m: self.gamma * gates[m] * step.loss(z) for m, z in alone.items()}

    def _weigh(self, alone: Mapping[str, Tensor], step: Step) -> None:
        """Weight the step's samples, and note what `updated` follows."""
        metrics = sample_metrics(step.output.logits, alone, step.target, step.task)
        metrics = metrics / (_maxima(metrics).unsqueeze(1) + 1e-8)
        difficulty = (-self.metrics.variance.sqrt()).softmax(0) @ metrics
        if slope := self.slope(step.epoch):
            weights = curriculum_weights(difficulty, step.mean(difficulty), slope)
            step.weigh(weights)
        w = torch.ones_like(difficulty) if step.weight is None else step.weight
        losses = {m: step.task.loss(z.float(), step.target, "none") for m, z in alone.items()}
        step.note("metrics", dict(zip("dch", metrics, strict=True)))
        step.note("weight", w)
        step.note("weighted loss", {m: w * loss for m, loss in losses.items()})
        step.note("score", {m: step.score(z) for m, z in alone.items()})
        step.note("fused score", step.score(step.output.logits))

    def updated(self, update: Update) -> None:
        self.metrics.follow_(torch.stack(list(update.mean("metrics").values())))
        scores, modalities = update.mean("score"), update.model.modalities
        if len(scores) < len(modalities):
            return
        weight = update.mean("weight").clamp(min=1e-8)
        losses = torch.stack([update.mean("weighted loss")[m] / weight for m in modalities])
        q = torch.stack([scores[m] for m in modalities])
        gates = self._gates(update.mean("fused score"), q, losses)
        if update.epoch >= self.warmup:
            cast(GatedFeatures, update.model.fusion).follow_(gates, self.beta)

    def _gates(self, fused: Tensor, q: Tensor, losses: Tensor) -> Tensor:
        rates = (1 - self.past_losses.ratio(losses)).clamp(min=0) + 1e-3
        rate = harmonic_mean_rate(rates)
        fusing = geometric_mean_ratio(fused, q).log().sigmoid()
        moving = self.past_rate.ratio(rate).log().sigmoid()
        self.past_losses.follow_(losses)
        self.past_rate.follow_(rate)
        return modality_gates(q, rates, fusing / (fusing + moving), self.temperature)


def _maxima(metrics: Tensor) -> Tensor:
    """The largest value of each metric over the batch and all ranks."""
    places = metrics.new_zeros(world(), len(metrics))
    places[rank()] = metrics.amax(1)
    return summed([places])[0].amax(0)
