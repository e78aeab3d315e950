"""CRMT: Quantifying and Enhancing Multi-modal Robustness with Modality Preference (ICLR 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from equivox.arguments import number
from equivox.functional.certificate import certified_radius, margin_loss
from equivox.method import Batch, Method
from equivox.modules.certified import CertifiedFusion, steepest
from equivox.task import MultiLabel

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task


class CRMT(Method):
    """Widen every modality's margin, then tune how they are weighed for a certified radius.

    A reconstruction where paper and code part: which logits define tau, and orthogonality. The
    model's fusion is replaced by `CertifiedFusion`. Phase 1 minimises L(f, y) + rho mean_i
    log(sum_m sum_{k != y} exp(h^m_k - h^m_y) + 1e-5). Then tau^m_k = max_x |d h^m_k / d x^m|, and
    phase 2 trains the a^m alone, encoders in eval mode, to maximise the mean of
    r = (sum_m (a_y h_y - a_j h_j) + b_y - b_j) / sqrt(sum_m (|a_y| tau_y + |a_j| tau_j)²), j the
    best wrong class: no perturbation of all inputs shorter than r > 0 changes y into j.

    Arguments:
        rho: weight of the margins; 2.
        starts: epoch, from 0, in which phase 2 begins; 140, of 185 epochs in all.
        lr: of the a^m in phase 2; 3e-5, 0.03 of the authors' rate. An SGD of its own, whatever the
            optimizer, with `momentum` 0.9, zero at every epoch's start, and `weight_decay` 0.01.
        orthogonal: see `CertifiedFusion`. Needs more features than classes.
        lipschitz_batches: how many batches tau is measured on; None is all.

    Departures: exact gradients of h^m for tau (the code's table leaves audio out); |a| in the
    denominator. Variants with adversarial and mixed inputs are not included. Multi-label: margins
    and radii are of each label against zero (ours). Inputs must be real numbers.

    Source: Yang et al., ICLR 2024, arXiv 2402.06244.

    >>> CRMT(starts=20)  # doctest: +ELLIPSIS
    CRMT(rho=2.0, starts=20, lr=3e-05, momentum=0.9, weight_decay=0.01, ...)
    """

    category = "objective"
    tasks = ("Classification", "MultiLabel")
    replaces_fusion = True
    leaves_unused = True
    drops_joint = True
    fidelity = "reconstruction"
    ingredients = frozenset({"extra parameters", "extra epochs"})
    search_space: ClassVar[Mapping[str, Any]] = {"rho": (2.0, 1.0, 0.5)}
    brief: ClassVar[Mapping[str, Any]] = {"starts": 1}
    lipschitz: Tensor
    velocity: Tensor

    def __init__(
        self,
        *,
        rho: float = 2.0,
        starts: int = 140,
        lr: float = 3e-5,
        momentum: float = 0.9,
        weight_decay: float = 1e-2,
        orthogonal: bool = False,
        lipschitz_batches: int | None = None,
    ) -> None:
        super().__init__()
        self.rho = number("rho", rho, least=0)
        self.starts = number("starts", starts, least=0)
        self.lr = number("lr", lr, least=0)
        self.momentum = number("momentum", momentum, least=0)
        self.weight_decay = weight_decay
        self.orthogonal = orthogonal
        self.lipschitz_batches = number("lipschitz_batches", lipschitz_batches, least=1)

    def setup(self, model: Multimodal, task: Task) -> Task:
        widths, outputs = model.sizes()
        if self.orthogonal and min(widths.values()) <= outputs:
            raise ValueError(
                f"`orthogonal=True` needs more features than outputs. Found {widths} and {outputs}."
            )
        model.fusion = CertifiedFusion(widths, outputs, self.orthogonal)
        self.register_buffer("lipschitz", torch.zeros(len(widths), outputs))
        self.register_buffer("velocity", torch.zeros(len(widths), outputs))
        return task

    def prepare(self, run: Run) -> None:
        self.velocity.zero_()
        if run.number == self.starts:
            self.lipschitz.copy_(steepest(run, self.lipschitz_batches))

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        tunes = run.number >= self.starts
        for batch in batches:
            yield batch.with_(learn=frozenset()) if tunes else batch

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        fusion = cast(CertifiedFusion, step.model.fusion)
        parts = fusion.parts(step.output.features)
        if step.epoch >= self.starts:
            return {"certificate": -step.average(self._radii(fusion, parts, step))}
        if self.rho == 0:
            return losses
        margins = margin_loss(list(parts.values()), _target(step))
        return losses | {"margin": self.rho * step.average(margins)}

    def _radii(self, fusion: CertifiedFusion, parts: dict[str, Tensor], step: Step) -> Tensor:
        scales = torch.stack([fusion.scales[m] for m in parts])
        tau = torch.stack([self.lipschitz[step.model.modalities.index(m)] for m in parts])
        h = torch.stack([x.detach() for x in parts.values()])
        return certified_radius(h, scales, fusion.bias.detach(), tau, _target(step))

    def gradients(self, update: Update) -> None:
        if update.epoch < self.starts:
            return
        fusion = cast(CertifiedFusion, update.model.fusion)
        for i, m in enumerate(update.model.modalities):
            a = fusion.scales[m]
            if a.grad is not None:
                g = a.grad + self.weight_decay * a
                self.velocity[i] = self.momentum * self.velocity[i] + g
                a.sub_(self.lr * self.velocity[i])
        for parameter in update.model.parameters():
            parameter.grad = None  # nothing else may move, nor by momentum or decay


def _target(step: Step) -> Tensor:
    """Labels as integers, also where they are given as numbers; classes as they are."""
    target: Tensor = step.target
    return target.long() if isinstance(step.task, MultiLabel) else target
