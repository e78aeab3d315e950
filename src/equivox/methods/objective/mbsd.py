"""MBSD: Multimodal Pre-Training with Self-Distillation for Product Understanding (WSDM 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from equivox.features import values, vector
from equivox.functional.divergence import kl_divergence
from equivox.functional.outcomes import log_probabilities, of_truth, row_means
from equivox.method import Method
from equivox.task import Dense, MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.step import Step
    from equivox.task import Task


class Opinion(NamedTuple):
    """What one modality says; axis 1 is reduced by the terms, what remains are decisions."""

    truth: Tensor
    """t: the probability of the true outcome, (batch, *positions)."""
    right: Tensor
    """Whether the likeliest outcome is the true one, (batch, *positions)."""
    log_p: Tensor | None
    """Log-probabilities at the temperature, (batch, outcomes, *positions); None for regression."""
    representation: Tensor
    """r, (batch, dimensions, *positions)."""


def taught(
    first: Tensor, second: Tensor, by_first: Tensor, detach: bool = True
) -> tuple[Tensor, ...]:
    """The teacher's and the student's rows of two modalities, where `by_first` says who teaches.

    `by_first` (batch, *positions) broadcasts over axis 1; the teacher's rows are constants.
    """
    chosen = by_first.unsqueeze(1)
    teacher, student = torch.where(chosen, first, second), torch.where(chosen, second, first)
    return (teacher.detach() if detach else teacher), student


def distillation_weight(first: Opinion, second: Opinion) -> Float[Tensor, " batch *positions"]:
    """omega = |t_a - t_b| where at least one of the two is right, else zero."""
    return (first.truth - second.truth).abs() * (first.right | second.right)


class MBSD(Method):
    """Let the modality that knows a sample better teach the other one, sample by sample.

    A reconstruction: the paper's exact weights and direction are not published; this is its
    classification form as BalanceBenchmark has it, with a true, detached distillation.

    For every pair, with t_m the true class's probability in modality m's logits, the teacher s has
    the larger t and the student w the other; omega = |t_a - t_b| if one of them is right, else 0:

    L = L(z) + sum_m L(z_m) + mean omega KL(p_s || p_w) + mean omega mean_dim (r_s - r_w)²,

    with p_s, r_s and omega constants, averaged over the pairs.

    Arguments:
        distillation: weight of the KL term; 1.
        representation: weight of the term in r; 1.
        unimodal: weight of each unimodal loss; 1.
        temperature: of KL alone, times its square.
        rs_on: r is the "logits", the "probs", or the "features" (of equal widths).
        detach_teacher: whether the teacher is a constant.
        benchmark_compat: BalanceBenchmark's numbers: t_w (log t_w - t_s) for the KL and nothing
            detached; r is the probabilities for three modalities and more.
        starts, ends: first and last epoch, counted from 0, in which it acts; else the joint loss.

    Departures: regression takes t = exp(-|error|), always distils, and has no KL; it gets heads of
    its own, since shares of one sum cannot all equal the target. Multi-label tasks distil label by
    label, dense ones position by position. The squared difference of logits has no bound: with
    momentum and a large learning rate the weight 1 can diverge. Ties go to the modality that is
    named first.

    Source: Liu et al., WSDM 2023.

    >>> MBSD(temperature=2.0)
    MBSD(distillation=1.0, representation=1.0, unimodal=1.0, temperature=2.0, rs_on='logits', ...)
    """

    category = "objective"
    fidelity = "reconstruction"
    ingredients: ClassVar[frozenset[str]] = frozenset({"unimodal losses"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "distillation": (1.0, 0.3, 3.0),
        "representation": (1.0, 0.1, 0.3),
        "rs_on": ("logits", "probs"),
    }
    neutral: ClassVar[Mapping[str, Any]] = {
        "distillation": 0.0,
        "representation": 0.0,
        "unimodal": 0.0,
    }

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
        if min(distillation, representation, unimodal) < 0:
            raise ValueError(
                f"Weights should be zero or more. Found {(distillation, representation, unimodal)}."
            )
        if temperature <= 0:
            raise ValueError(f"`temperature` should be positive. Found {temperature}.")
        if rs_on not in ("logits", "probs", "features"):
            raise ValueError(f'`rs_on` should be "logits", "probs" or "features". Found {rs_on!r}.')
        self.distillation = distillation
        self.representation = representation
        self.unimodal = unimodal
        self.temperature = temperature
        self.rs_on = rs_on
        self.detach_teacher = detach_teacher
        self.benchmark_compat = benchmark_compat
        self.starts = starts
        self.ends = ends

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
        late = self.ends is not None and step.epoch > self.ends
        if step.epoch < self.starts or late:
            return losses
        logits = step.output.unimodal if self.unimodal or self._distils() else {}
        if self.unimodal:
            losses = losses | {m: self.unimodal * step.loss(z) for m, z in logits.items()}
        pairs = list(combinations(self._opinions(logits, step), 2)) if self._distils() else []
        if not pairs:
            return losses
        valid = _valid(step)
        kl = torch.stack([row_means(self._kl(*pair), valid).mean() for pair in pairs]).mean()
        rs = torch.stack([row_means(self._rs(*pair), valid).mean() for pair in pairs]).mean()
        terms = {"distillation": self.distillation * kl, "representation": self.representation * rs}
        return losses | terms

    def _distils(self) -> bool:
        return bool(self.distillation or self.representation)

    def _opinions(self, logits: Mapping[str, Tensor], step: Step) -> list[Opinion]:
        probs = self.rs_on == "probs" or (self.benchmark_compat and len(logits) > 2)
        rs_on = "probs" if probs else self.rs_on
        opinions = []
        for m, z in logits.items():
            opinion = opinion_of(z, step, self.temperature, rs_on)
            if rs_on == "features":
                opinion = opinion._replace(representation=_comparable(step, m))
            opinions.append(opinion)
        return opinions

    def _weight(self, a: Opinion, b: Opinion) -> Tensor:
        weight = distillation_weight(a, b)
        return weight if self.benchmark_compat else weight.detach()

    def _kl(self, a: Opinion, b: Opinion) -> Tensor:
        if a.log_p is None or b.log_p is None:
            return torch.zeros_like(a.truth)
        if self.benchmark_compat:
            student, teacher = torch.minimum(a.truth, b.truth), torch.maximum(a.truth, b.truth)
            return self._weight(a, b) * (torch.xlogy(student, student) - student * teacher)
        detach = self.detach_teacher
        teacher, student = taught(a.log_p, b.log_p, a.truth >= b.truth, detach)
        return self._weight(a, b) * self.temperature**2 * kl_divergence(teacher, student)

    def _rs(self, a: Opinion, b: Opinion) -> Tensor:
        detach = self.detach_teacher and not self.benchmark_compat
        by_first, weight = a.truth >= b.truth, self._weight(a, b)
        if a.representation.ndim <= by_first.ndim:  # one vector for many decisions
            weight = row_means(weight)
            by_first = row_means(a.truth - b.truth) >= 0
        teacher, student = taught(a.representation, b.representation, by_first, detach)
        return weight * (teacher - student).square().mean(1)


def opinion_of(logits: Tensor, step: Step, temperature: float, rs_on: str) -> Opinion:
    """One modality's opinion by its logits; r is the logits, or the probabilities."""
    if isinstance(step.task, Regression):
        said = logits.reshape(step.target.shape)
        truth = torch.exp(-(said - step.target).abs())
        return Opinion(truth, torch.ones_like(truth, dtype=torch.bool), None, said.unsqueeze(1))
    independent = isinstance(step.task, MultiLabel)
    log_p = log_probabilities(logits, independent)
    labels = step.target.argmax(1) if _soft(logits, step) else step.target.long()
    truth = of_truth(log_p, labels, _valid(step)).exp()
    right = log_p.argmax(1) == labels
    r = logits.unsqueeze(1) if independent else logits
    if rs_on == "probs":
        r = log_p[:, 1:].exp() if independent else log_p.exp()
    heated = log_probabilities(logits / temperature, independent)
    return Opinion(truth, right, heated, r)


def _soft(logits: Tensor, step: Step) -> bool:
    """Whether the target holds class probabilities instead of class numbers."""
    kinds = isinstance(step.task, MultiLabel)
    return not kinds and step.target.is_floating_point() and step.target.ndim == logits.ndim


def _valid(step: Step) -> Tensor | None:
    return step.target != step.task.ignore_index if isinstance(step.task, Dense) else None


def _comparable(step: Step, modality: str) -> Tensor:
    feature = step.output.features[modality]
    return values(feature) if isinstance(step.task, Dense) else vector(feature)
