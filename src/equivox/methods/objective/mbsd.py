"""MBSD: Multimodal Pre-Training with Self-Distillation for Product Understanding (WSDM 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number, span
from equivox.features import values, vector
from equivox.functional.distillation import Opinion, distillation_weight, opinion_of, taught
from equivox.functional.divergence import kl_divergence
from equivox.functional.outcomes import row_means, valid_decisions
from equivox.functional.schedules import within
from equivox.method import Method
from equivox.task import Dense, Regression

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.step import Step
    from equivox.task import Task


class MBSD(Method):
    """Let the modality that knows a sample better teach the other one, sample by sample.

    A reconstruction: the paper's exact weights and direction are not published; this is its
    classification form as BalanceBenchmark has it, with a true, detached distillation.

    For every pair, with t_m the true class's probability in modality m's logits, the teacher s has
    the larger t and the student w the other; omega = |t_a - t_b| if one of them is right, else 0:

    L = L(z) + sum_m L(z_m) + mean omega KL(p_s || p_w) + mean omega mean_dim (r_s - r_w)²,

    with p_s, r_s and omega constants, averaged over the pairs.

    Arguments:
        distillation, representation, unimodal: weights of the KL term, the term in r and L(z_m); 1.
            The second is unbounded for logits: a large learning rate with momentum can diverge.
        temperature: of KL alone, times its square.
        rs_on: r is the "logits", the "probs", or the "features" (of equal widths).
        detach_teacher: whether the teacher is a constant.
        benchmark_compat: BalanceBenchmark's numbers: t_w (log t_w - t_s) for the KL and nothing
            detached; r is the probabilities for three modalities and more.
        starts, ends: first and last epoch, counted from 0, in which it acts; else the joint loss.

    Departures: regression takes t = exp(-|error|), always distils, has no KL, and gets heads of its
    own. Multi-label tasks distil by label, dense ones by position. At a tie the first one teaches.

    Source: Liu et al., WSDM 2023.

    >>> MBSD(temperature=2.0)
    MBSD(distillation=1.0, representation=1.0, unimodal=1.0, temperature=2.0, rs_on='logits', ...)
    """

    category = "objective"
    fidelity = "reconstruction"
    ingredients = frozenset({"unimodal losses"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "distillation": (1.0, 0.3, 3.0),
        "representation": (1.0, 0.1, 0.3),
        "rs_on": ("logits", "probs"),
    }
    neutral: ClassVar[Mapping[str, Any]] = dict.fromkeys(
        ("distillation", "representation", "unimodal"), 0.0
    )

    def __init__(
        self,
        *,
        distillation: float = 1.0,
        representation: float = 1.0,
        unimodal: float = 1.0,
        temperature: float = 1.0,
        rs_on: str = "logits",
        detach_teacher: bool = True,
        benchmark_compat: bool = False,
        starts: int = 0,
        ends: int | None = None,
    ) -> None:
        super().__init__()
        self.distillation = number("distillation", distillation, least=0)
        self.representation = number("representation", representation, least=0)
        self.unimodal = number("unimodal", unimodal, least=0)
        self.temperature = number("temperature", temperature, above=0)
        self.rs_on = choice("rs_on", rs_on, ("logits", "probs", "features"))
        self.detach_teacher = detach_teacher
        self.benchmark_compat = benchmark_compat
        self.starts, self.ends = span(starts, ends)

    def setup(self, model: Multimodal, task: Task) -> Task:
        if self.rs_on == "features" and len(set(model.widths.values())) > 1:
            raise ValueError(
                f"Features that are compared should be equally wide. Found {model.widths}. "
                'Use `rs_on="logits"`.'
            )
        if isinstance(task, Regression) and (self.unimodal or self.representation):
            model.add_heads()
        return task

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if not within(step.epoch, self.starts, self.ends):
            return losses
        distils = self.distillation > 0 or self.representation > 0
        logits = step.output.unimodal if self.unimodal or distils else {}
        if self.unimodal:
            losses = losses | {m: self.unimodal * step.loss(z) for m, z in logits.items()}
        pairs = list(combinations(self._opinions(logits, step), 2)) if distils else []
        if not pairs:
            return losses
        valid = valid_decisions(step.task, step.target)
        kl, rs = (
            torch.stack([step.average(row_means(term(*pair), valid)) for pair in pairs]).mean()
            for term in (self._kl, self._rs)
        )
        terms = {"distillation": self.distillation * kl, "representation": self.representation * rs}
        return losses | terms

    def _opinions(self, logits: Mapping[str, Tensor], step: Step) -> list[Opinion]:
        probs = self.rs_on == "probs" or (self.benchmark_compat and len(logits) > 2)
        heat = self.temperature
        said = [opinion_of(z, step.target, step.task, heat, probs) for z in logits.values()]
        if self.rs_on != "features" or probs:
            return said
        pool = values if isinstance(step.task, Dense) else vector
        features = [pool(step.output.features[m]) for m in logits]
        return [o._replace(representation=r) for o, r in zip(said, features, strict=True)]

    def _kl(self, a: Opinion, b: Opinion) -> Tensor:
        if a.log_p is None or b.log_p is None:
            return torch.zeros_like(a.truth)
        if self.benchmark_compat:
            low, high = torch.minimum(a.truth, b.truth), torch.maximum(a.truth, b.truth)
            weight = distillation_weight(a, b, detach=False)
            return weight * (torch.xlogy(low, low) - low * high)
        teacher, student = taught(a.log_p, b.log_p, a.truth >= b.truth, self.detach_teacher)
        return distillation_weight(a, b) * self.temperature**2 * kl_divergence(teacher, student)

    def _rs(self, a: Opinion, b: Opinion) -> Tensor:
        detach = self.detach_teacher and not self.benchmark_compat
        weight = distillation_weight(a, b, detach=not self.benchmark_compat)
        by_first = a.truth >= b.truth
        if a.representation.ndim <= by_first.ndim:  # one vector for many decisions
            by_first, weight = row_means(a.truth - b.truth) >= 0, row_means(weight)
        teacher, student = taught(a.representation, b.representation, by_first, detach)
        return weight * (teacher - student).square().mean(1)
