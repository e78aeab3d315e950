"""G-Blend: What Makes Training Multi-modal Classification Networks Hard? (CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, names, number
from equivox.functional.blending import blend, gain_per_overfitting
from equivox.method import Method
from equivox.methods.yardstick.alone import HEADS, Alone, unimodal_losses

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.run import Fork, Run
    from equivox.step import Step
    from equivox.task import Task


class GradientBlending(Method):
    """Weight unimodal and joint losses by how well their learning generalises.

    L = sum_m w_m L_m + w_J L_J, with w_k proportional to G_k / O_k²: the gain on hold-out data over
    the squared growth of overfitting in a probe, a copy that trains from the present weights on
    loss k alone with a fresh optimizer state. Offline, the probes run once before training; online,
    before every super-epoch. Prediction uses the joint logits.

    Arguments:
        mode: "offline" or "online".
        probe_epochs: of the offline probes; the paper probes for the whole schedule.
        super_epoch: epochs of a super-epoch, and of its probes; 5 on Kinetics.
        warmup: epochs of the first super-epoch, 10 on Kinetics.
        weights: fixed, by modality and "joint", instead of probes; zero for what is not named.
        heads: "own" linear heads, or "split", the modality's share of the joint logits.
        sign: a negative gain counts as zero, "clip", or by its size, "abs".
        delta: False takes the values at the end of the probe instead of differences.
        w_max: an upper limit of the weights. Not of the paper.
        eps: the floor of O_k².

    Raises ValueError, when bound, for weights of unknown names and for a `w_max` that so many
    weights of sum one cannot keep.

    Departures: where no gain is positive the weights are uniform; the paper is silent about it.

    Source: Wang et al., CVPR 2020; weights of the released code can be given as `weights`.

    >>> GradientBlending(weights={"audio": 0.014, "visual": 0.63, "joint": 0.356})
    GradientBlending(mode='offline', ..., weights={'audio': 0.014, ...}, ...)
    """

    category = "objective"
    fidelity = "paper"
    ingredients = frozenset({"unimodal losses", "extra parameters", "extra epochs"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "mode": ("offline", "online"),
        "super_epoch": (5, 10),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"weights": {"joint": 1.0}}
    brief: ClassVar[Mapping[str, Any]] = {"mode": "online", "super_epoch": 1, "warmup": 1}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "the probes take the loader's batches one by one"
    }
    blend_weights: Tensor
    raw: Tensor

    def __init__(
        self,
        *,
        mode: str = "offline",
        probe_epochs: int = 10,
        super_epoch: int = 5,
        warmup: int = 10,
        weights: Mapping[str, float] | None = None,
        heads: str = "own",
        sign: str = "clip",
        delta: bool = True,
        w_max: float | None = None,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        given = [1.0] if weights is None else weights.values()
        if min(given, default=0) < 0 or not any(given):
            raise ValueError(
                f"`weights` should be zero or more, and not all zero. Found `weights = {weights}`."
            )
        self.mode = choice("mode", mode, ("offline", "online"))
        self.probe_epochs = number("probe_epochs", probe_epochs, above=0)
        self.super_epoch = number("super_epoch", super_epoch, above=0)
        self.warmup = number("warmup", warmup, above=0)
        self.weights = None if weights is None else dict(weights)
        self.heads = choice("heads", heads, HEADS)
        self.sign = choice("sign", sign, ("clip", "abs"))
        self.delta = delta
        self.w_max = w_max
        self.eps = number("eps", eps, above=0)
        self.needs_validation = weights is None

    def setup(self, model: Multimodal, task: Task) -> Task:
        losses = (*model.modalities, "joint")
        names("weights", self.weights or (), losses)
        if self.w_max is not None and self.w_max < 1 / len(losses):
            raise ValueError(
                f"`w_max` should be 1/{len(losses)} or more for {len(losses)} losses. Found "
                f"`w_max = {self.w_max}`."
            )
        given = self.weights or dict.fromkeys(losses, 1 / len(losses))
        start = torch.tensor([float(given.get(name, 0.0)) for name in losses])
        self.register_buffer("blend_weights", start)
        self.register_buffer("raw", torch.zeros(len(losses)))
        return task

    def prepare(self, run: Run) -> None:
        epochs = self._due(run.number)
        if self.weights is None and epochs:
            self.raw.copy_(self._estimate(run, epochs))
            self.blend_weights.copy_(blend(self.raw, self.w_max))

    def _due(self, epoch: int) -> int:
        """How long the probes before this epoch are; zero where there are none."""
        if epoch == 0:
            return self.probe_epochs if self.mode == "offline" else self.warmup
        starts = epoch >= self.warmup and (epoch - self.warmup) % self.super_epoch == 0
        return self.super_epoch if starts and self.mode == "online" else 0

    def _estimate(self, run: Run, epochs: int) -> Tensor:
        """The raw weights of GB_Estimate: one probe after another."""
        alone = [Alone(modality=m, heads=self.heads) for m in run.model.modalities]
        before, after = [], []
        for method in (*alone, None):
            fork = run.fork(method)
            before.append(_values(fork, run))
            fork.fit(run.loader, epochs)
            after.append(_values(fork, run))
        values = torch.stack(before), torch.stack(after)
        return gain_per_overfitting(*values, self.eps, self.sign, self.delta)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        terms = (*step.model.modalities, "joint")
        weights = dict(zip(terms, self.blend_weights.unbind(), strict=True))
        said = step.output.unimodal if self.heads == "own" else step.output.split
        blended = unimodal_losses(step, said) | {"joint": losses["joint"]}
        return losses | {name: weights[name] * loss for name, loss in blended.items()}


def _values(fork: Fork, run: Run) -> Tensor:
    """The mean losses, (2,), of the probe's task on the training and the hold-out data."""
    return torch.stack([fork.losses(data).mean() for data in (run.loader, run.validation or ())])
