"""OPM: On-the-fly Modulation for Balanced Multimodal Learning (TPAMI 2024), its forward half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.features import Features, blanked, map_values, vector
from equivox.functional import ratio_to_others
from equivox.method import Method

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from equivox.model import Multimodal
    from equivox.step import Step
    from equivox.task import Task


def drop_probabilities(
    scores: Mapping[str, Float[Tensor, ""]], q_base: float, lam: float
) -> dict[str, Float[Tensor, ""]]:
    """q_m = q_base (1 + lam r_m), at most 1, where r_m = tanh(relu(rho_m - 1)) > 0; else 0.

    rho_m is the mean over the others j of S_m / S_j. The lowest score always has q = 0.

    >>> scores = {"audio": torch.tensor(1.871601), "video": torch.tensor(1.0)}
    >>> drop_probabilities(scores, q_base=0.5, lam=0.5)
    {'audio': tensor(0.6755), 'video': tensor(0.)}
    """

    def probability(rho: Tensor) -> Tensor:
        r = torch.tanh(torch.relu(rho - 1))
        return torch.where(r > 0, (q_base * (1 + lam * r)).clamp(0, 1), 0.0)

    return {m: probability(rho) for m, rho in ratio_to_others(scores).items()}


def dropped_fraction(
    q: Mapping[str, Float[Tensor, ""]], widths: Mapping[str, int]
) -> Float[Tensor, ""]:
    """theta = sum_m d_m q_m / sum_m d_m: the expected share of features that is dropped.

    >>> q = {"audio": torch.tensor(0.6), "video": torch.tensor(0.0)}
    >>> dropped_fraction(q, {"audio": 3, "video": 1})
    tensor(0.4500)
    """
    return torch.stack([widths[m] * x for m, x in q.items()]).sum() / sum(widths[m] for m in q)


def dropped(
    features: Features, kept: Mapping[str, Bool[Tensor, " batch"]], theta: Float[Tensor, ""]
) -> Features:
    """The features with rows outside `kept` zero, and all of them divided by 1 - theta."""
    scale = 1 / (1 - theta)
    zeroed = {m: blanked(z, kept[m]) for m, z in features.items()}
    return {m: map_values(lambda x: x * scale.to(x.dtype), z) for m, z in zeroed.items()}


class OPM(Method):
    """Drop the features of the dominant modality, sample by sample, while training.

    q_m follows from the scores S_m of the modalities' shares of the logits on this batch; a sample
    loses the whole feature of modality m with probability q_m, and all features are divided by
    1 - theta, the expected share that is left. Nothing is dropped at prediction.

    Arguments:
        q_base: base probability; 0.5 in the authors' commands.
        lam: gain of q with the discrepancy; 0.5.
        p_exe: probability that a batch is modulated at all; 0.7.
        warm_up: epochs without dropping; 6.
        delayed: use the probabilities of the batch before, as the paper's text has it; the code
            uses those of this batch.

    Departures: q and theta are constants (the code leaks a gradient of theta into the encoders).
    More than two modalities: the mean of the ratios to the others. For regression and multi-label
    tasks the score is `exp(-loss)` of the sample. A sample that is left without any modality, which
    takes data with missing modalities, has no weight in the loss.

    Source: Wei et al., TPAMI 2024.

    >>> OPM(p_exe=1.0)
    OPM(q_base=0.5, lam=0.5, p_exe=1.0, warm_up=6, delayed=False)
    """

    category = "feed-forward"
    search_space: ClassVar[Mapping[str, Any]] = {
        "q_base": (0.5, 0.4, 0.3, 0.7),
        "lam": (0.5, 0.2, 1.0),
        "p_exe": (0.7, 1.0, 0.4),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"q_base": 0.0}
    brief: ClassVar[Mapping[str, Any]] = {"warm_up": 0, "p_exe": 1.0}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "Probabilities follow the scores of one forward."
    }
    before: Tensor

    def __init__(
        self,
        *,
        q_base: float = 0.5,
        lam: float = 0.5,
        p_exe: float = 0.7,
        warm_up: int = 6,
        delayed: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"q_base": q_base, "p_exe": p_exe}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` should lie in [0, 1]. Found `{name} = {value}`.")
        if lam < 0 or warm_up < 0:
            raise ValueError(
                f"`lam` and `warm_up` should be zero or more. Found {lam} and {warm_up}."
            )
        self.q_base = q_base
        self.lam = lam
        self.p_exe = p_exe
        self.warm_up = warm_up
        self.delayed = delayed

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.register_buffer("before", torch.zeros(len(model.modalities)))
        return task

    def features(self, features: Features, step: Step) -> Features:
        if step.epoch < self.warm_up:
            return features
        q = self._probabilities(step)
        act = step.uniform(1)[0] >= 1 - self.p_exe
        draws = step.uniform_rows(len(q)).unbind(1)
        kept = {m: (u >= q[m]) | ~act for m, u in zip(q, draws, strict=True)}
        widths = step.model.widths or {m: vector(z).shape[-1] for m, z in features.items()}
        theta = torch.where(act, dropped_fraction(q, widths), 0.0)
        self._weigh(kept, step)
        return dropped(features, kept, theta)

    def _probabilities(self, step: Step) -> dict[str, Tensor]:
        scores = {m: step.score(o) for m, o in step.output.split.items()}
        q = drop_probabilities(step.mean(scores), self.q_base, self.lam)
        if not self.delayed:
            return q
        index = [step.model.modalities.index(m) for m in q]
        last = self.before.clone()
        self.before[index] = torch.stack(list(q.values()))
        return {m: last[i] for m, i in zip(q, index, strict=True)}

    def _weigh(self, kept: Mapping[str, Tensor], step: Step) -> None:
        """Samples that have no modality left count for nothing."""
        there = _there(step)
        if there:
            left = [k & there.get(m, torch.ones_like(k)) for m, k in kept.items()]
            some = torch.stack(left).any(0).float()
            step.weight = some if step.weight is None else some * step.weight


def _there(step: Step) -> dict[str, Tensor]:
    """Which rows have which modality, where the data or the batch's plan lack some."""
    masks = {m: x for m, x in step.batch.inputs.get("present", {}).items() if m in step.modalities}
    keep = step.batch.keep
    if keep is not None:
        for m in step.modalities:
            planned = keep[:, step.model.modalities.index(m)].bool()
            masks[m] = planned & masks[m] if m in masks else planned
    return masks
