"""AMSS: Rebalancing Multi-Modal Optimization by Adaptively Masking Subnetworks (TPAMI 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.features import vector
from equivox.functional import entropy
from equivox.functional.label_entropy import constant_loss, label_facts
from equivox.functional.sampling import (
    inclusion_probabilities,
    successive_draws,
    systematic_draws,
    update_ratios,
)
from equivox.functional.units import Units, View, spread, unit_shares, units_of
from equivox.method import Method
from equivox.modules.classifiers import late_gradients

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.step import Step, Update
    from equivox.task import Task


class AMSS(Method):
    """Let a sampled part of each modality's units learn: the fewer, the more significant it is.

    rho_m = (H_Y - L_m + delta) / H_m, with L_m the loss of modality m's share of the logits, H_Y
    the entropy of the labels and H_m that of the softmax of its features; q_m = clamp(1 -
    softmax_m(rho / tau)). Of every weight with n units, ceil(n q_m) are drawn without replacement,
    with probability ∝ sum of g²; the gradient of the others is zero. In each row of the late
    fusion, int(n q_m) of modality m's columns are drawn. Units: see `functional.units`.

    Arguments:
        plus: None is AMSS. AMSS+ weighs the drawn units: "ht" by 1 / pi_j, the inverse of their
            probability to be drawn, which is unbiased (ours); "code" by 1 / (p_j + 1/n), as
            released, which enlarges gradients by about n / 2: only with BatchNorm.
        tau: 0.2 audio-video and gestures, 0.5 image-text.
        delta: 0.5.
        bounds: of q_m; 0.1 and 0.9.
        sample: "adaptive", or the ablations "random" and "topk".
        mask_head: False leaves the fusion alone, as the released audio-video script.
        normalise_by_entropy: False leaves H_m out, as the image-text script.

    Departures: layers with one unit, or without gradient, are not masked; one unit at least is
    drawn. With "ht", p is smoothed to 0.9 p + 0.1 / n. For other tasks H_Y is the loss of the best
    constant prediction on the batch, which for classes is the entropy. One modality is not masked.

    Source: Yang et al., TPAMI 2025, arXiv 2404.08347, and the released audio-video script.

    >>> AMSS(plus=None, tau=0.5)  # doctest: +ELLIPSIS
    AMSS(plus=None, tau=0.5, delta=0.5, bounds=(0.1, 0.9), sample='adaptive', ...)
    """

    category = "optimization"
    fidelity = "official"
    search_space: ClassVar[Mapping[str, Any]] = {"tau": (0.2, 0.5), "plus": ("ht", None, "code")}
    neutral: ClassVar[Mapping[str, Any]] = {"bounds": (1.0, 1.0), "plus": None}

    def __init__(
        self,
        *,
        plus: str | None = "ht",
        tau: float = 0.2,
        delta: float = 0.5,
        bounds: tuple[float, float] = (0.1, 0.9),
        sample: str = "adaptive",
        mask_head: bool = True,
        normalise_by_entropy: bool = True,
    ) -> None:
        super().__init__()
        if plus == "ht" and sample == "topk":
            raise ValueError('`plus="ht"` needs a random draw. Found `sample="topk"`.')
        if not 0 < bounds[0] <= bounds[1] <= 1:
            raise ValueError(f"`bounds` should be ordered in (0, 1]. Found `bounds = {bounds}`.")
        self.plus = choice("plus", plus, (None, "ht", "code"))
        self.tau = number("tau", tau, above=0)
        self.delta = delta
        self.bounds = bounds
        self.sample = choice("sample", sample, ("adaptive", "random", "topk"))
        self.mask_head = mask_head
        self.normalise_by_entropy = normalise_by_entropy
        self._units: dict[str, list[Units]] = {}
        self._task: Task

    def setup(self, model: Multimodal, task: Task) -> Task:
        self._task = task
        for m in model.modalities:
            own = {id(p) for p in model.encoder_parameters(m)}
            units = units_of(model.encoders[m])
            self._units[m] = [u for u in units if id(u.parameter) in own and u.view[2] > 1]
        return task

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        with torch.no_grad():
            said, target = step.output.split, step.target
            loss, z = step.task.loss, step.output.features
            rows = {m: loss(u.float(), target, reduction="none") for m, u in said.items()}
            facts = label_facts(step.task, next(iter(said.values())), target)
            step.note("losses", rows)
            step.note("entropies", {m: entropy(vector(z[m])) for m in said})
            step.note("labels", {str(i): x for i, x in enumerate(facts.unbind(1))})
        return losses

    def gradients(self, update: Update) -> None:
        losses = update.mean("losses")
        if len(losses) < 2:
            return
        for m, q in zip(losses, self._ratios(update).unbind(), strict=True):
            for parameter, view in self._units[m]:
                if parameter.grad is not None:
                    k = torch.ceil(view[2] * q - 1e-6)
                    self._mask_(parameter.grad, view, k, update.generator)
            for gradient in late_gradients(update.model.fusion, m) if self.mask_head else []:
                rows, columns = gradient.shape
                k = torch.floor(columns * q + 1e-6).clamp(min=1)
                self._mask_(gradient, (rows, 1, columns, 1), k, update.generator)

    def _ratios(self, update: Update) -> Tensor:
        """q_m of the modalities in the update."""
        losses, entropies = update.mean("losses"), update.mean("entropies")
        labels = torch.stack(list(update.mean("labels").values()))
        rho = constant_loss(self._task, labels) - torch.stack(list(losses.values())) + self.delta
        if self.normalise_by_entropy:
            rho = rho / torch.stack([entropies[m] for m in losses]).clamp(min=1e-8)
        return update_ratios(rho, self.tau, self.bounds)

    def _mask_(self, gradient: Tensor, view: View, k: Tensor, by: torch.Generator) -> None:
        p, known = unit_shares(gradient, view)
        if view[2] > 1:
            mask = torch.where(known, self._drawn(p, k.double(), by).to(p.dtype), 1)
            gradient.mul_(spread(mask, view, gradient).to(gradient.dtype))

    def _drawn(self, p: Tensor, k: Tensor, by: torch.Generator) -> Tensor:
        """The mask, (draws, units), with the weights of AMSS+."""
        n = p.shape[-1]
        p = torch.full_like(p, 1 / n) if self.sample == "random" else p
        uniform = torch.rand(p.shape, generator=by, device=p.device, dtype=torch.float64)
        if self.plus == "ht":
            pi = inclusion_probabilities(0.9 * p + 0.1 / n, k)
            start = torch.rand(p.shape[:-1], generator=by, device=p.device, dtype=torch.float64)
            return systematic_draws(pi, start, uniform) / pi
        waits = torch.full_like(uniform, 0.5) if self.sample == "topk" else uniform
        chosen = successive_draws(p, k, waits)
        return chosen / (p + 1 / n) if self.plus == "code" else chosen.to(p.dtype)
