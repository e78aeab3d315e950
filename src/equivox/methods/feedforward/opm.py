"""OPM: On-the-fly Modulation for Balanced Multimodal Learning (TPAMI 2024), its forward half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import number
from equivox.features import Features, vector
from equivox.functional import ratio_to_others
from equivox.functional.dropout import dropped, dropped_fraction
from equivox.method import Method

if TYPE_CHECKING:
    from jaxtyping import Float

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


class OPM(Method):
    """Drop the features of the dominant modality, sample by sample, while training.

    q_m follows from the scores S_m of the modalities' shares of the logits on this batch; a sample
    loses the whole feature of modality m with probability q_m, and all features are divided by
    1 - theta, the expected share that is left. Nothing is dropped at prediction.

    Arguments:
        q_base: base probability; 0.5 in the authors' commands.
        lam: gain of q with the discrepancy; 0.5.
        p_exe: probability that a batch is modulated at all; 0.7.
        warmup: epochs without dropping; 6.
        delayed: use the probabilities of the batch before, as the paper's text has it; the code
            uses those of this batch.

    Departures: q and theta are constants (the code leaks a gradient of theta into the encoders).
    More than two modalities: the mean of the ratios to the others. For regression and multi-label
    tasks the score is `exp(-loss)` of the sample. A sample that is left without any modality, which
    takes data with missing modalities, has no weight in the loss.

    Source: Wei et al., TPAMI 2024.

    >>> OPM(p_exe=1.0)
    OPM(q_base=0.5, lam=0.5, p_exe=1.0, warmup=6, delayed=False)
    """

    category = "feed-forward"
    fidelity = "official"
    search_space: ClassVar[Mapping[str, Any]] = {
        "q_base": (0.5, 0.4, 0.3, 0.7),
        "lam": (0.5, 0.2, 1.0),
        "p_exe": (0.7, 1.0, 0.4),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"q_base": 0.0}
    brief: ClassVar[Mapping[str, Any]] = {"warmup": 0, "p_exe": 1.0}
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
        warmup: int = 6,
        delayed: bool = False,
    ) -> None:
        super().__init__()
        self.q_base = number("q_base", q_base, least=0, most=1)
        self.lam = number("lam", lam, least=0)
        self.p_exe = number("p_exe", p_exe, least=0, most=1)
        self.warmup = number("warmup", warmup, least=0)
        self.delayed = delayed

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.register_buffer("before", torch.zeros(len(model.modalities)))
        return task

    def features(self, features: Features, step: Step) -> Features:
        if step.epoch < self.warmup:
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
        last = dict(zip(step.model.modalities, self.before.clone(), strict=True))
        for m, probability in q.items():
            self.before[step.model.modalities.index(m)] = probability
        return {m: last[m] for m in q}

    def _weigh(self, kept: Mapping[str, Tensor], step: Step) -> None:
        """Samples that have no modality left count for nothing."""
        there = step.there()
        if there is not None:
            columns = [there[:, step.model.modalities.index(m)] for m in kept]
            left = [k & here for k, here in zip(kept.values(), columns, strict=True)]
            some = torch.stack(left).any(0).float()
            step.weigh(some)
