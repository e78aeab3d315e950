"""DRL: Diagnosing and Re-learning for Balanced Multimodal Learning (ECCV 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.arguments import number
from equivox.distributed import broadcast_, rank
from equivox.features import vector
from equivox.functional.clustering import cluster_purity, k_means
from equivox.functional.labels import most_frequent_class, single_classes
from equivox.functional.sampling import stratified
from equivox.method import Method
from equivox.modules.constants import constants

if TYPE_CHECKING:
    from equivox.method import Batch
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.task import Task


class DRL(Method):
    """Set encoders back softly towards their initial weights, the more, the more they overfit.

    After every `period` epochs, `times` times at most, the features of the training and of the
    validation data are clustered by K-means with as many clusters as classes. d_m is the distance
    of their purities and theta_m <- w_m theta_init + (1 - w_m) theta_m, w_m = tanh(lambda d_m).
    Nothing else changes; what several encoders share stays as it is. The initial
    weights are those at the start of the first epoch, for instance pre-trained ones.

    Arguments:
        strength: lambda; the paper uses 3.
        period: T, the epochs between two events, of which the first follows epoch T (from 0); the
            paper uses 20.
        times: the most events; the paper uses 3.
        max_samples: of each set that K-means sees, drawn in proportion to the classes.
        bins: quantiles of a regression target that serve as classes.
        reset_optimizer_state: also forget the momentum of the encoders.
        blend_buffers: also blend the running statistics of normalisation layers.

    An event takes place before the epoch that follows, so that the epoch is evaluated without it.
    Features come from the given training loader, in eval mode; the released code's are augmented,
    too. Of a modality that a sample lacks it is the blank one. Needs scikit-learn:
    `pip install "equivox[bench]"`.

    Source: Wei et al., ECCV 2024, Eq. 3-6; the scaling and K-means after the released code.

    >>> DRL(period=15, times=2).strength
    3.0
    """

    category = "optimization"
    fidelity = "official"
    needs_validation = True
    search_space: ClassVar[Mapping[str, Any]] = {
        "strength": (3.0, 1.0, 10.0),
        "period": (20, 10, 5),
        "times": (3, 1),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"times": 0}
    brief: ClassVar[Mapping[str, Any]] = {"period": 1}

    def __init__(
        self,
        *,
        strength: float = 3.0,
        period: int = 20,
        times: int = 3,
        max_samples: int = 20_000,
        bins: int = 10,
        reset_optimizer_state: bool = False,
        blend_buffers: bool = False,
    ) -> None:
        super().__init__()
        self.strength = number("strength", strength, least=0)
        self.period = number("period", period, least=1)
        self.times = number("times", times, least=0)
        self.max_samples = number("max_samples", max_samples, least=1)
        self.bins = number("bins", bins, least=2)
        self.reset_optimizer_state = reset_optimizer_state
        self.blend_buffers = blend_buffers

    def setup(self, model: Multimodal, task: Task) -> Task:
        k_means(2)  # a missing package is reported now, not after many epochs
        initial = {m: constants(self._weights(model, m)) for m in model.modalities}
        self.initial = nn.ModuleDict(initial)
        return task

    @torch.no_grad()
    def prepare(self, run: Run) -> None:
        if run.number == 0:
            for modality in run.model.modalities:
                for theta, initial in self._pairs(run.model, modality):
                    initial.copy_(theta)
        elif self.due(run.number - 1):
            for modality, gap in self._gaps(run).items():
                w = math.tanh(self.strength * gap)
                for theta, initial in self._pairs(run.model, modality):
                    theta.lerp_(initial.to(theta), w)
                if self.reset_optimizer_state:
                    run.forget(run.model.encoder_parameters(modality))

    def due(self, epoch: int) -> bool:
        """Whether encoders are set back after this epoch, counted from 0."""
        return epoch > 0 and epoch % self.period == 0 and epoch // self.period <= self.times

    def _gaps(self, run: Run) -> dict[str, float]:
        """d_m of every modality, equal on all ranks."""
        train, held_out = (run.collect(x, _measured) for x in (run.loader, run.validation or ()))
        gaps = torch.zeros(len(run.model.modalities), device=train["target"].device)
        if rank() == 0:
            purities = [self._purities(run.task, train, part) for part in (train, held_out)]
            gaps = (purities[0] - purities[1]).abs().to(gaps)
        broadcast_([gaps])
        return dict(zip(run.model.modalities, gaps.tolist(), strict=True))

    def _purities(self, task: Task, train: Mapping[str, Any], part: Mapping[str, Any]) -> Tensor:
        known = train["target"]
        clusters = len(single_classes(task, known, known, self.bins).unique())
        labels = single_classes(task, part["target"], known, self.bins)
        chosen = stratified(labels, self.max_samples)
        features = part["features"].values()
        return torch.tensor([cluster_purity(z[chosen], labels[chosen], clusters) for z in features])

    def _pairs(self, model: Multimodal, modality: str) -> Iterator[tuple[Tensor, Tensor]]:
        """What is set back of an encoder, each tensor with its initial values."""
        return zip(self._weights(model, modality), self.initial[modality].parameters(), strict=True)

    def _weights(self, model: Multimodal, modality: str) -> list[Tensor]:
        weights: list[Tensor] = list(model.encoder_parameters(modality))
        if self.blend_buffers:
            others = [model.encoders[m] for m in model.modalities if m != modality]
            shared = {id(buffer) for encoder in others for buffer in encoder.buffers()}
            buffers = model.encoders[modality].buffers()
            weights += [b for b in buffers if b.is_floating_point() and id(b) not in shared]
        return weights


def _measured(output: Output, batch: Batch) -> dict[str, Any]:
    """The features, and the target, of which a dense one is cut down to its most frequent class."""
    features = {m: vector(z).float() for m, z in output.features.items()}
    target = batch.target
    if output.logits.ndim > 2:
        target = most_frequent_class(target, output.logits.shape[1])
    return {"features": features, "target": target}
