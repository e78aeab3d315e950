"""LFM: Facilitating Classification via Dynamically Learning Modality Gap (NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.distributed import broadcast_
from equivox.features import Feature, vector
from equivox.functional.contrastive import global_info_nce
from equivox.functional.divergence import disagreement, js_divergence, mixture_divergence
from equivox.functional.schedules import fitted_weight, heuristic_weight
from equivox.fusion import additive
from equivox.lookahead import released_slope, slope_ahead
from equivox.method import Method

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task


class LFM(Method):
    """Fit labels and align the modalities, with weights that move from alignment to the labels.

    L = 2 [(1 - k) L(z) + k L_al], with L_al the mean over all pairs of modalities of
    [KL(mu || p_a) + KL(mu || p_b)] / 2, mu = (p_a + p_b) / 2. p_m is the softmax of z_m, the logits
    whose mean is z: M times modality m's share of the fused logits.

    Arguments:
        schedule: of k. "heuristic" (LFM-H): 1 - exp(-1 / t), t = 1, 2, … by epoch. "fitted": one
            minus the polynomial that the authors fitted on CREMA-D. "learned" (LFM-LB): a step
            against the derivative of the held-out loss after one training step; before every epoch,
            from 0.95. "learned_code": the released form of it. A number: k itself, always.
        alignment: "divergence"; "js", the true Jensen-Shannon divergence; "infonce", the paper's
            contrast of the features, which must be equally wide, at `temperature` (0.07).
        epochs: of the training, to which "fitted" stretches its 200.
        clamp: range of k_cls of "fitted"; None gives the released values, which leave [0, 1].
        rate: step of "learned" (default 1) and "learned_code" (1e-4, halved every 20 epochs).

    The learned schedules need validation data, of which they use the first batch: do not shuffle
    it. "learned_code" uses its first eight samples.

    Departures: any fusion is kept (the released model averages linear heads, which `Sum` and
    `Concat` equal); without shares, z_m is the answer with the other modalities blanked. Regression
    aligns by squared differences, multi-label tasks label by label, dense ones by position.

    Source: Yang et al., NeurIPS 2024.

    >>> LFM(schedule="fitted", epochs=100)
    LFM(schedule='fitted', alignment='divergence', temperature=0.07, epochs=100, ...)
    """

    category = "objective"
    fidelity = "official"
    search_space: ClassVar[Mapping[str, Any]] = {
        "schedule": ("heuristic", "fitted", "learned", 0.1, 0.5),
        "alignment": ("divergence", "js"),
    }
    k: Tensor

    def __init__(
        self,
        *,
        schedule: str | int | float = "heuristic",
        alignment: str = "divergence",
        temperature: float = 0.07,
        epochs: int = 200,
        clamp: tuple[float, float] | None = (0.05, 0.95),
        rate: float | None = None,
    ) -> None:
        super().__init__()
        if isinstance(schedule, (int, float)):
            number("schedule", schedule, least=0, most=1)
        else:
            choice("schedule", schedule, ("heuristic", "fitted", "learned", "learned_code"))
        self.schedule = schedule
        self.alignment = choice("alignment", alignment, ("divergence", "js", "infonce"))
        self.temperature = number("temperature", temperature, above=0)
        self.epochs = number("epochs", epochs, least=1)
        self.clamp = clamp
        self.rate = rate
        self.needs_validation = schedule in ("learned", "learned_code")

    def setup(self, model: Multimodal, task: Task) -> Task:
        if self.alignment == "infonce" and len(set(model.widths.values())) > 1:
            raise ValueError(
                f"Features that are contrasted should be equally wide. Found {model.widths}. "
                'Use `alignment="divergence"`.'
            )
        self.register_buffer("k", torch.full((), 0.95))
        return task

    def prepare(self, run: Run) -> None:
        if self.schedule == "heuristic":
            self.k.fill_(heuristic_weight(run.number))
        elif self.schedule == "fitted":
            k_cls = fitted_weight(min(run.number * 200 / self.epochs, 199))
            low, high = self.clamp or (-torch.inf, torch.inf)
            self.k.fill_(1 - min(max(k_cls, low), high))
        elif isinstance(self.schedule, str):
            self._learn(run)
        else:
            self.k.fill_(self.schedule)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        aligned = self._alignment(step)
        fit = {"joint": 2 * (1 - self.k) * losses["joint"]}
        return losses | fit | ({} if aligned is None else {"alignment": 2 * self.k * aligned})

    def _alignment(self, step: Step) -> Tensor | None:
        """L_al: the mean over all pairs; None for a single modality."""
        features = self.alignment == "infonce"
        said = step.output.features if features else averaged_logits(step.output)
        gaps = [self._gap(a, b, step) for a, b in combinations(said.values(), 2)]
        return torch.stack(gaps).mean() if gaps else None

    def _gap(self, a: Feature, b: Feature, step: Step) -> Tensor:
        if self.alignment == "infonce":
            return global_info_nce(vector(a), vector(b), self.temperature, step.weight)
        divergence = js_divergence if self.alignment == "js" else mixture_divergence
        return step.average(disagreement(a, b, step.task, divergence))

    def _learn(self, run: Run) -> None:
        """One step of k against the derivative of the held-out loss."""
        if self.schedule == "learned":
            slope = slope_ahead(run, self._both, self.k)
            rate = 1.0 if self.rate is None else self.rate
        else:
            slope = released_slope(run, self._both, self.k)
            rate = (1e-4 if self.rate is None else self.rate) * 0.5 ** (run.number // 20)
        with torch.no_grad():
            self.k.copy_((self.k - rate * slope).clamp(0.05, 0.95))
        broadcast_([self.k])

    def _both(self, step: Step) -> tuple[Tensor, Tensor]:
        """L(z) and L_al of a step outside the training."""
        loss, aligned = step.loss(step.output.logits), self._alignment(step)
        return loss, loss * 0 if aligned is None else aligned


def averaged_logits(output: Output) -> dict[str, Tensor]:
    """Each modality's own logits, of which the fused ones are the mean."""
    shares = output.split
    factor = len(shares) if additive(output.model.fusion) else 1
    return {m: factor * z for m, z in shares.items()}
