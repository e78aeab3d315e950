"""DRL: Diagnosing and Re-learning for Balanced Multimodal Learning (ECCV 2024)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.distributed import broadcast_, rank
from equivox.features import vector
from equivox.functional import purity
from equivox.method import Method
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from equivox.method import Batch
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.task import Task


def relearning_weight(gap: float, strength: float) -> float:
    """w = tanh(lambda d): how far the encoder goes back to its initial weights.

    :param gap: d, the distance of the purities of training and validation features.
    :param strength: lambda.

    >>> round(relearning_weight(0.25, strength=3.0), 6)
    0.635149
    """
    return math.tanh(strength * gap)


def cluster_purity(
    features: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"], clusters: int
) -> float:
    """The purity of the K-means clusters of features that are scaled to [-1, 1] by dimension.

    Needs scikit-learn. ValueError for fewer samples than clusters.

    >>> z = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> cluster_purity(z, torch.tensor([0, 0, 1, 1]), clusters=2)
    1.0
    """
    if len(features) < clusters:
        raise ValueError(
            f"K-means needs a sample a cluster. Found {len(features)} samples for {clusters} "
            "clusters. Give more validation data."
        )
    low, high = features.amin(0), features.amax(0)
    scaled = 2 * (features - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny) - 1
    means = _k_means()(clusters, init="k-means++", n_init=10, random_state=0)
    with warnings.catch_warnings():
        # Fewer distinct points than clusters is a fact about the encoder, which purity tells.
        warnings.filterwarnings("ignore", "Number of distinct clusters")
        found = means.fit_predict(scaled.cpu().numpy())
    return float(purity(labels.cpu(), torch.from_numpy(found).long()))


def diagnosis_labels(task: Task, train: Tensor, target: Tensor, bins: int = 10) -> Tensor:
    """The (batch,) class numbers by which features are judged.

    Classes are themselves; a regression target is its quantile bin (of the mean over outputs), and
    a multi-label one its label that is most frequent in training, or a class of its own if none.

    :param train: The training targets, from which quantiles and frequencies are taken.

    >>> from equivox import Regression
    >>> y = torch.arange(4.0)
    >>> diagnosis_labels(Regression(), y, y, bins=2)
    tensor([0, 0, 1, 1])
    """
    if isinstance(task, Regression):
        known, y = (t.float().view(len(t), -1).mean(1) for t in (train, target))
        levels = torch.arange(1, bins, device=train.device) / bins
        return torch.bucketize(y, known.quantile(levels))
    if isinstance(task, MultiLabel):
        said = target > 0.5
        dominant = (said * (1 + train.float().sum(0))).argmax(1)
        return torch.where(said.any(1), dominant, target.shape[1])
    return target if target.ndim == 1 else target.argmax(-1)


class DRL(Method):
    """Set encoders back softly towards their initial weights, the more, the more they overfit.

    After every `period` epochs, `times` times at most, the features of the training and of the
    validation data are clustered by K-means with as many clusters as classes. d_m is the distance
    of their purities and theta_m <- w_m theta_init + (1 - w_m) theta_m, w_m = tanh(lambda d_m).
    Nothing else changes; parameters that several encoders share stay as they are.

    The initial weights are those at the start of the first epoch, for instance pre-trained ones.

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
    too. Needs scikit-learn: `pip install "equivox[bench]"`.

    Source: Wei et al., ECCV 2024, Eq. 3-6; the scaling and K-means after the released code.

    >>> DRL(period=15, times=2).strength
    3.0
    """

    category = "optimization"
    needs_validation = True
    search_space: ClassVar[Mapping[str, Any]] = {
        "strength": (3.0, 1.0, 10.0),
        "period": (20, 10, 5),
        "times": (3, 1),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"times": 0}
    brief: ClassVar[Mapping[str, Any]] = {"period": 1}
    initial: nn.ModuleDict

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
        numbers = {"strength": (strength, 0), "period": (period, 1), "times": (times, 0)}
        numbers |= {"max_samples": (max_samples, 1), "bins": (bins, 2)}
        for name, (value, least) in numbers.items():
            if value < least:
                raise ValueError(f"`{name}` should be {least} or more. Found `{name} = {value}`.")
        self.strength = strength
        self.period = period
        self.times = times
        self.max_samples = max_samples
        self.bins = bins
        self.reset_optimizer_state = reset_optimizer_state
        self.blend_buffers = blend_buffers

    def setup(self, model: Multimodal, task: Task) -> Task:
        _k_means()  # a missing package is reported now, not after many epochs
        self.initial = nn.ModuleDict(
            {m: _frozen(self._weights(model, m)) for m in model.modalities}
        )
        return task

    def prepare(self, run: Run) -> None:
        if run.number == 0:
            self._remember(run.model)
        elif self.due(run.number - 1):
            self._blend(run, self._diagnose(run))

    def due(self, epoch: int) -> bool:
        """Whether encoders are set back after this epoch, counted from 0."""
        return epoch > 0 and epoch % self.period == 0 and epoch // self.period <= self.times

    def _diagnose(self, run: Run) -> dict[str, float]:
        """w_m of every modality, equal on all ranks."""
        train, held_out = (run.collect(x, _measured) for x in (run.loader, run.validation or ()))
        gaps = torch.zeros(len(run.model.modalities), device=train["target"].device)
        if rank() == 0:
            purities = [self._purities(run.task, train, part) for part in (train, held_out)]
            gaps = (purities[0] - purities[1]).abs().to(gaps)
        broadcast_([gaps])
        weights = [relearning_weight(gap, self.strength) for gap in gaps.tolist()]
        return dict(zip(run.model.modalities, weights, strict=True))

    def _purities(self, task: Task, train: Mapping[str, Any], part: Mapping[str, Any]) -> Tensor:
        known = train["target"]
        clusters = len(diagnosis_labels(task, known, known, self.bins).unique())
        labels = diagnosis_labels(task, known, part["target"], self.bins)
        chosen = _stratified(labels, self.max_samples)
        features = part["features"].values()
        return torch.tensor([cluster_purity(z[chosen], labels[chosen], clusters) for z in features])

    def _blend(self, run: Run, weights: Mapping[str, float]) -> None:
        with torch.no_grad():
            for modality, w in weights.items():
                current = self._weights(run.model, modality)
                for theta, start in zip(current, self._copies(modality), strict=True):
                    theta.lerp_(start.to(theta), w)
                if self.reset_optimizer_state:
                    run.forget(run.model.encoder_parameters(modality))

    def _remember(self, model: Multimodal) -> None:
        with torch.no_grad():
            for modality in model.modalities:
                current = self._weights(model, modality)
                for start, theta in zip(self._copies(modality), current, strict=True):
                    start.copy_(theta)

    def _copies(self, modality: str) -> list[Tensor]:
        return list(self.initial[modality].parameters())

    def _weights(self, model: Multimodal, modality: str) -> list[Tensor]:
        """What is set back of an encoder."""
        weights: list[Tensor] = list(model.encoder_parameters(modality))
        if self.blend_buffers:
            buffers = model.encoders[modality].buffers()
            weights += [buffer for buffer in buffers if buffer.is_floating_point()]
        return weights


def _frozen(weights: Iterable[Tensor]) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(w.detach().clone(), requires_grad=False) for w in weights)


def _measured(output: Output, batch: Batch) -> dict[str, Any]:
    """The features, and the target, of which a dense one is cut down to its most frequent class."""
    features = {m: vector(z).float() for m, z in output.features.items()}
    target = batch.target
    if output.logits.ndim > 2:  # dense: positions of no class match none of these
        classes = range(output.logits.shape[1])
        target = torch.stack([(target == c).flatten(1).sum(1) for c in classes], 1).argmax(1)
    return {"features": features, "target": target}


def _stratified(labels: Tensor, count: int) -> Tensor:
    """At most `count` positions, drawn with a fixed seed in proportion to the classes."""
    if len(labels) <= count:
        return torch.arange(len(labels), device=labels.device)
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = mixed[labels.cpu()[mixed].argsort(stable=True)]
    steps = torch.arange(count) * len(labels) // count
    return by_class[steps].to(labels.device)


def _k_means() -> Any:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError(
            "`DRL` clusters features with scikit-learn. Found none installed. "
            'Run `pip install "equivox[bench]"`.'
        ) from error
    return KMeans
