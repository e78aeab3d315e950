"""Updates: what a training's optimizer steps do to each encoder, summed over an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.functional.fisher import fisher_trace
from equivox.functional.gradients import flat_norm
from equivox.functional.learning_speed import conditional_speeds, learning_speed
from equivox.functional.precision import at_least_float32
from equivox.mmtm import MMTMBlock

if TYPE_CHECKING:
    from equivox.diagnosis.onset import Number
    from equivox.model import Multimodal

BY_UPDATE = ("gradient_norm", "learning_speed", "fisher_trace", "update_ratio")
"""The curves that are measured at the optimizer's steps, but for the conditional speed."""


class Updates:
    """Sums over the updates of an epoch. Nothing is read from the device before `read`."""

    def __init__(self, model: Multimodal) -> None:
        self.encoders = {m: model.encoder_parameters(m) for m in model.modalities}
        self.blocks = [part for part in model.fusion.modules() if isinstance(part, MMTMBlock)]
        self.bypass = {m: [p for b in self.blocks for p in b.bypass(m)] for m in model.modalities}
        self.main = {m: _main(model, m, self.bypass.values()) for m in model.modalities}
        self.since_start: dict[str, dict[str, Tensor]] = {}
        self._begin()
        self._look()

    def _begin(self) -> None:
        self.sums = self.counts = torch.zeros(len(self.encoders), len(BY_UPDATE))
        self.measured: dict[str, Tensor] = {}
        self.weights: dict[str, tuple[list[nn.Parameter], list[Tensor]]] = {}

    def _look(self) -> None:
        """Whether gates are held in the next step: a method decides it before that step is made."""
        self.held = self.blocks[0].held >= 0 if self.blocks else torch.zeros((), dtype=torch.bool)

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Before the optimizer moves: gradients, and where the weights are."""
        # With a closure the gradients come inside the step: they are read after it.
        self.late = kwargs.get("closure", args[1] if len(args) > 1 else None) is not None
        if not self.late:
            self._gradients()
        for m, encoder in self.encoders.items():
            moving = [p for p in encoder if self.late or p.grad is not None]
            self.weights[m] = moving, [p.detach().clone() for p in moving]

    def after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """After it moved: how far."""
        if self.late:
            self._gradients()
        if self.measured:
            # A step that a GradScaler left out has no length: 0 / 0 is not counted.
            made = 1 - getattr(optimizer, "found_inf", torch.zeros(()))
            rows = [self._row(m, made) for m in self.encoders]
            device = next(iter(self.measured.values())).device
            self._add(torch.stack([row.to(device) for row in rows]))
        self.measured, self.weights = {}, {}
        self._look()

    @torch.no_grad()
    def _gradients(self) -> None:
        for m, encoder in self.encoders.items():
            gradients = [p.grad for p in encoder if p.grad is not None]
            if gradients:
                wide = [at_least_float32(g) for g in gradients if g.ndim >= 2]
                trace = fisher_trace(torch._foreach_mul(wide, wide) if wide else [])
                norm, speed = flat_norm(gradients), learning_speed(self.main[m])
                self.measured[m] = torch.stack([x.to(norm) for x in (norm, speed, trace)])
            if self.blocks:
                self._conditional(m)

    def _conditional(self, modality: str) -> None:
        """The sums of a branch's bypass and of itself; none are made while gates are held."""
        for name, part in (("bypass", self.bypass), ("main", self.main)):
            speed = learning_speed(part[modality])
            speed = torch.where(self.held.to(speed.device) | ~speed.isfinite(), 0, speed)
            sums = self.since_start.setdefault(name, {})
            sums[modality] = sums[modality] + speed if modality in sums else speed

    def _row(self, modality: str, made: Tensor) -> Tensor:
        """The numbers of an update, in the order of `BY_UPDATE`; NaN without a gradient."""
        if modality not in self.measured:
            return torch.full((len(BY_UPDATE),), torch.nan)
        moving, then = self.weights[modality]
        step = flat_norm(torch._foreach_sub([p.detach() for p in moving], then))
        found = self.measured[modality]
        return torch.cat([found, (step / flat_norm(then) / made).to(found).view(1)])

    def _add(self, rows: Tensor) -> None:
        """Add to the sums what is finite."""
        kept = rows.isfinite()
        self.sums = self.sums.to(rows) + torch.where(kept, rows, 0)
        self.counts = self.counts.to(rows) + kept

    def read(self) -> dict[str, dict[str, Number]]:
        """The epoch's numbers; the sums begin anew."""
        found: dict[str, dict[str, Number]] = {}
        sums, counts = self.sums.tolist(), self.counts.tolist()
        for m, totals, updates in zip(self.encoders, sums, counts, strict=True):
            for name, total, count in zip(BY_UPDATE, totals, updates, strict=True):
                if count:
                    mean = total if name == "fisher_trace" else total / count
                    found.setdefault(name, {})[m] = mean
        if self.since_start:
            found["conditional_speed"] = self._conditional_speeds()
        self._begin()
        return found

    def _conditional_speeds(self) -> dict[str, Number]:
        """Not a number where a branch or its bypass has not learned yet."""
        bypass, main = (torch.stack([*self.since_start[k].values()]) for k in ("bypass", "main"))
        speeds = torch.where((bypass > 0) & (main > 0), conditional_speeds(bypass, main), torch.nan)
        return dict(zip(self.encoders, speeds.tolist(), strict=True))


def _main(
    model: Multimodal, modality: str, bypass: Iterable[Sequence[nn.Parameter]]
) -> list[nn.Parameter]:
    """A modality's encoder and its branch of the fusion, but for what others reach it through."""
    inside = {id(p) for part in bypass for p in part}
    own = (*model.encoder_parameters(modality), *model.branch_parameters(modality))
    return [p for p in own if id(p) not in inside]
