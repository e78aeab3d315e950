"""DynCIM: Dynamic Curriculum for Imbalanced Multimodal Learning (arXiv 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.distributed import rank, summed, world
from equivox.features import Features, map_values
from equivox.functional.divergence import js_divergence
from equivox.functional.outcomes import log_probabilities, row_means
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.task import MultiLabel, Regression, Task

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.step import Step, Update


def sample_metrics(
    fused: Float[Tensor, " batch *outputs"],
    alone: Mapping[str, Float[Tensor, " batch *outputs"]],
    target: Any,
    task: Task,
) -> Float[Tensor, "metrics batch"]:
    """Deviation, consistency and stability of every sample; the higher, the harder.

    d = l(z) + sum_m omega_m l(z_m), omega the softmax over modalities of -l(z_m); c the mean
    Jensen-Shannon divergence of p_m and p; h the mean entropy of p_m, over its maximum.
    """
    losses = torch.stack([task.loss(z.float(), target, reduction="none") for z in alone.values()])
    fused_loss = task.loss(fused.float(), target, reduction="none")
    deviation = fused_loss + ((-losses).softmax(0) * losses).sum(0)
    if isinstance(task, Regression):  # numbers, not distributions: their squared differences
        apart = [row_means((z.float() - fused.float()).square()) for z in alone.values()]
        return torch.stack([deviation, sum_of(apart) / len(alone), torch.zeros_like(deviation)])
    labels = isinstance(task, MultiLabel)
    p = log_probabilities(fused, labels)
    said = [log_probabilities(z, labels) for z in alone.values()]
    consistency = sum_of(row_means(js_divergence(q, p)) for q in said) / len(said)
    entropy = sum_of(row_means(-(q.exp() * q).sum(1)) for q in said) / len(said)
    return torch.stack([deviation, consistency, entropy / log(max(2, p.shape[1]))])


def curriculum_weights(
    difficulty: Float[Tensor, " batch"], mean: Float[Tensor, ""], slope: float
) -> Float[Tensor, " batch"]:
    """exp(-slope (D - mean D)) within [0.1, 10]: a positive slope prefers easy samples.

    >>> curriculum_weights(torch.tensor([0.0, 1.0]), torch.tensor(0.5), slope=0.0)
    tensor([1., 1.])
    """
    return torch.exp(-slope * (difficulty - mean)).clamp(0.1, 10)


def geometric_mean_ratio(
    fused: Float[Tensor, ""], alone: Float[Tensor, " modalities"]
) -> Float[Tensor, ""]:
    """GMR = (prod_m q / q_m)^(1/M): above one where fusion beats the typical modality.

    >>> geometric_mean_ratio(torch.tensor(0.8), torch.tensor([0.4, 0.8]))
    tensor(1.4142)
    """
    return (fused.clamp(min=1e-6).log() - alone.clamp(min=1e-6).log().mean()).exp()


def harmonic_mean_rate(rates: Float[Tensor, " modalities"]) -> Float[Tensor, ""]:
    """HMIR = M / sum_m 1 / g_m: low where any modality stalls.

    >>> harmonic_mean_rate(torch.tensor([0.1, 0.3]))
    tensor(0.1500)
    """
    return len(rates) / rates.reciprocal().sum()


def modality_gates(
    q: Float[Tensor, " modalities"],
    rates: Float[Tensor, " modalities"],
    balance: Float[Tensor, ""] | float,
    temperature: float,
) -> Float[Tensor, " modalities"]:
    """M softmax(s / temperature), s = balance q / sum q + (1 - balance) g / sum g; their mean is 1.

    >>> modality_gates(torch.tensor([0.5, 0.5]), torch.tensor([0.1, 0.1]), 0.3, 0.5)
    tensor([1., 1.])
    """
    scores = balance * q / q.sum().clamp(min=1e-6) + (1 - balance) * rates / rates.sum()
    return len(q) * (scores / temperature).softmax(0)


class GatedFeatures(nn.Module):
    """Every feature times the gate of its modality, then the fusion that was there."""

    gate: Tensor

    def __init__(self, inner: nn.Module, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.modalities = modalities
        self.register_buffer("gate", torch.ones(len(modalities)))
        for name in ("widths", "outputs", "pool", "stackable", "partial", "branch"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))
        if hasattr(inner, "unimodal"):
            self.unimodal = self._unimodal

    def forward(self, features: Features) -> Any:
        return self.inner(self.gated(features))

    def gated(self, features: Features) -> Features:
        """The features times their gates."""
        gates = dict(zip(self.modalities, self.gate.clone(), strict=True))
        return {m: map_values(gates[m].mul, z) for m, z in features.items()}

    def _unimodal(self, features: Features) -> dict[str, Tensor]:
        said: dict[str, Tensor] = self.inner.unimodal(self.gated(features))  # type: ignore[operator]
        return said

    def compile(self, *arguments: Any, **options: Any) -> None:
        self.inner.compile(*arguments, **options)


class DynCIM(Method):
    """A reconstruction: weight samples from easy to hard, and gate modalities in the fusion.

    The paper names the three metrics of a sample and the two measures of a modality; no code is
    out, and every formula here is ours, so results are those of the reconstruction. With l the
    task's loss, z the fused logits and z_m those of a linear head on modality m,

        L = mean of w_i [l(z_i) + gamma sum_m G_m l(z_m,i)],
        w = exp(-(1 - 2 pi) eta (D - mean D)) within [0.1, 10], over its mean,

    with pi = epoch / `curriculum`, at most 1. D is a mean of `sample_metrics`, each over its
    maximum in the batch, with weights softmax(-sqrt(v)) for their variances v over time. The gates
    G, which multiply the features in training and prediction, are running means of
    `modality_gates`, whose balance is GMR' / (GMR' + HMIR'), GMR' = sigmoid(ln GMR) and
    HMIR' = sigmoid(ln(HMIR / its running mean)); g_m = max(0, 1 - l_m / its running mean) + 1e-3.

    Arguments (no value of the paper's is known):
        eta: sharpness of the samples' weights.
        curriculum: epochs until hard samples weigh most: the length of your training.
        temperature: of the gates.
        gamma: weight of the unimodal losses.
        beta: decay of all running means.
        warmup: epochs in which weights and gates are one.

    The fusion is kept, within `GatedFeatures`. Regression compares predictions by their squared
    difference and has no entropy. Dense metrics are means over all positions. In an update without
    some modality the gates stay as they are.

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
    metric_mean: Tensor
    metric_variance: Tensor
    loss_mean: Tensor
    rate_mean: Tensor
    known: Tensor  # whether the running means hold something

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
        for name, value in {"eta": eta, "gamma": gamma, "warmup": warmup}.items():
            if value < 0:
                raise ValueError(f"`{name}` should be zero or more. Found `{name} = {value}`.")
        for name, value in {"curriculum": curriculum, "temperature": temperature}.items():
            if value <= 0:
                raise ValueError(f"`{name}` should be positive. Found `{name} = {value}`.")
        if not 0 <= beta < 1:
            raise ValueError(f"`beta` should lie in [0, 1). Found `beta = {beta}`.")
        self.eta = eta
        self.curriculum = curriculum
        self.temperature = temperature
        self.gamma = gamma
        self.beta = beta
        self.warmup = warmup
        self.leaves_unused = gamma == 0  # type: ignore[misc]

    def setup(self, model: Multimodal, task: Task) -> Task:
        model.fusion = GatedFeatures(model.fusion, model.modalities)
        self.register_buffer("metric_mean", torch.zeros(3))
        self.register_buffer("metric_variance", torch.zeros(3))
        self.register_buffer("loss_mean", torch.zeros(len(model.modalities)))
        self.register_buffer("rate_mean", torch.zeros(()))
        self.register_buffer("known", torch.zeros(2, dtype=torch.bool))  # metrics, modalities
        return task

    def slope(self, epoch: int) -> float:
        """(1 - 2 pi) eta: positive while easy samples come first, zero in the warm-up."""
        progress = min(epoch / self.curriculum, 1.0)
        return 0.0 if epoch < self.warmup else (1 - 2 * progress) * self.eta

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        alone = step.output.unimodal
        with torch.no_grad():
            self._weigh(alone, step)
        terms = {"joint": step.loss(step.output.logits)} if self.slope(step.epoch) else {}
        if self.gamma:
            gates = dict(zip(step.model.modalities, _fusion(step.model).gate.clone(), strict=True))
            terms |= {m: self.gamma * gates[m] * step.loss(z) for m, z in alone.items()}
        return losses | terms

    def _weigh(self, alone: Mapping[str, Tensor], step: Step) -> None:
        """Weight the step's samples, and note what `updated` follows."""
        metrics = sample_metrics(step.output.logits, alone, step.target, step.task)
        metrics = metrics / (_maxima(metrics).unsqueeze(1) + 1e-8)
        shares = (-self.metric_variance.sqrt()).softmax(0)
        difficulty = shares @ metrics
        if slope := self.slope(step.epoch):
            weights = curriculum_weights(difficulty, step.mean(difficulty), slope)
            step.weight = weights if step.weight is None else weights * step.weight
        w = torch.ones_like(difficulty) if step.weight is None else step.weight
        losses = {m: step.task.loss(z.float(), step.target, "none") for m, z in alone.items()}
        step.note("metrics", dict(zip("dch", metrics, strict=True)))
        step.note("weight", w)
        step.note("weighted loss", {m: w * loss for m, loss in losses.items()})
        step.note("score", {m: step.score(z) for m, z in alone.items()})
        step.note("fused score", step.score(step.output.logits))

    def updated(self, update: Update) -> None:
        self._follow_metrics(torch.stack(list(update.mean("metrics").values())))
        means = update.mean("score")
        modalities = update.model.modalities
        if len(means) < len(modalities):
            return
        weight = update.mean("weight").clamp(min=1e-8)
        losses = torch.stack([update.mean("weighted loss")[m] / weight for m in modalities])
        q = torch.stack([means[m] for m in modalities])
        gates = self._gates(update.mean("fused score"), q, losses)
        if update.epoch >= self.warmup:
            gate = _fusion(update.model).gate
            gate.copy_(self.beta * gate + (1 - self.beta) * gates)

    def _follow_metrics(self, now: Tensor) -> None:
        known = self.known[0]
        off = torch.where(known, (now - self.metric_mean).square(), 0)
        self.metric_variance.copy_(self.beta * self.metric_variance + (1 - self.beta) * off)
        self._follow(self.metric_mean, now, known)
        self.known[0] = True

    def _gates(self, fused: Tensor, q: Tensor, losses: Tensor) -> Tensor:
        known = self.known[1]
        progress = 1 - losses / self.loss_mean.clamp(min=1e-8)
        rates = torch.where(known, progress.clamp(min=0), 0) + 1e-3
        rate = harmonic_mean_rate(rates)
        relative = torch.where(known, rate / self.rate_mean.clamp(min=1e-8), 1)
        fusing = geometric_mean_ratio(fused, q).log().sigmoid()
        balance = fusing / (fusing + relative.log().sigmoid())
        self._follow(self.loss_mean, losses, known)
        self._follow(self.rate_mean, rate, known)
        self.known[1] = True
        return modality_gates(q, rates, balance, self.temperature)

    def _follow(self, mean: Tensor, now: Tensor, known: Tensor) -> None:
        mean.copy_(torch.where(known, self.beta * mean + (1 - self.beta) * now, now))


def _fusion(model: Multimodal) -> Any:
    return model.fusion


def _maxima(metrics: Tensor) -> Tensor:
    """The largest value of each metric over the batch and all ranks."""
    places = metrics.new_zeros(world(), len(metrics))
    places[rank()] = metrics.amax(1)
    return summed([places])[0].amax(0)
