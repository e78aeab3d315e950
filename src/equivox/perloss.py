"""The gradient of every loss, in the fewest backward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equivox.distributed import averaged_
from equivox.fusion import sum_of

Gradients = list[Tensor | None]


class LossGradients:
    """Splits a total loss into gradients, and remembers those of each loss for the update.

    Of the `parameters`, those learn that require a gradient at the time.

    Losses that are named after a modality reach that modality's encoder alone, so they share one
    pass; with parameters that several encoders share, every loss has a pass of its own.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        owned: Mapping[str, Sequence[nn.Parameter]],
        scaler: Any,
    ) -> None:
        self._parameters = list(parameters)
        self._owned = owned
        self._scaler = scaler
        self._sums: dict[str, dict[int, Tensor]] = {}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The summed loss, whose backward hands out the gradients that were found here."""
        groups = self._groups(losses)
        learning = [p for p in self._parameters if p.requires_grad]
        device = next(iter(losses.values())).device
        with torch.autocast(device.type, enabled=False):
            passes = [
                self._pass(losses, names, learning, last=names is groups[-1]) for names in groups
            ]
        finished = [_added(parts) for parts in zip(*passes, strict=True)]
        numbered = [dict(zip(map(id, learning), gradients, strict=True)) for gradients in passes]
        keep = [(name, g) for names, g in zip(groups, numbered, strict=True) for name in names]
        value = sum_of(loss.detach() for loss in losses.values())
        answer: Tensor = _Finished.apply(  # type: ignore[no-untyped-call]
            value, self, keep, finished, *learning
        )
        return answer

    def _groups(self, losses: Mapping[str, Tensor]) -> list[list[str]]:
        alone = [name for name in losses if name in self._owned and not self._owned["shared"]]
        return [[name] for name in losses if name not in alone] + ([alone] if alone else [])

    def _pass(
        self,
        losses: Mapping[str, Tensor],
        names: Sequence[str],
        learning: Sequence[nn.Parameter],
        last: bool,
    ) -> Gradients:
        loss = sum_of(losses[name] for name in names)
        if not loss.requires_grad:  # nothing that learns is in it
            return [None] * len(learning)
        scale = None if self._scaler is None else self._scaler.scale(torch.ones_like(loss))
        gradients = torch.autograd.grad(
            loss if scale is None else loss * scale,
            learning,
            retain_graph=not last,
            allow_unused=True,
        )
        if scale is None:
            return list(gradients)
        return [None if g is None else g / scale for g in gradients]

    def record(self, name: str, gradients: Mapping[int, Tensor | None], factor: Tensor) -> None:
        """Add a step's gradients of one loss, times the factor that its backward was given."""
        if self._scaler is not None:
            factor = factor / self._scaler.scale(torch.ones_like(factor))
        sums = self._sums.setdefault(name, {})
        wanted = {id(p) for owner in self._owners(name) for p in self._owned[owner]}
        for key, gradient in gradients.items():
            if gradient is not None and key in wanted:
                old = sums.get(key)
                sums[key] = gradient * factor if old is None else old + gradient * factor

    def finish(self) -> dict[str, dict[str, list[Tensor]]]:
        """The synchronised gradients of the update, by loss and modality; starts afresh."""
        sums, self._sums = self._sums, {}
        averaged_([gradient for of_loss in sums.values() for gradient in of_loss.values()])
        return {
            name: {owner: _aligned(of_loss, self._owned[owner]) for owner in self._owners(name)}
            for name, of_loss in sums.items()
        }

    def _owners(self, name: str) -> list[str]:
        """Whose parameters this loss may reach: what shares its pass is not its own."""
        alone = name in self._owned and not self._owned["shared"]
        return [name] if alone else list(self._owned)

    def drop(self) -> None:
        """Forget the steps since the last update."""
        self._sums = {}


class _Finished(torch.autograd.Function):
    """A loss whose gradients are known: no layer is traversed again."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        owner: LossGradients,
        keep: list[tuple[str, Mapping[int, Tensor | None]]],
        finished: Gradients,
        *parameters: Tensor,  # noqa: ARG004 - what `backward` has gradients for
    ) -> Tensor:
        ctx.owner, ctx.keep, ctx.finished = owner, keep, finished
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        (factor,) = outer
        for name, gradients in ctx.keep:
            ctx.owner.record(name, gradients, factor)
        scaled = [None if g is None else g * factor for g in ctx.finished]
        return (None, None, None, None, *scaled)


def _added(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return sum_of(found) if found else None


def _aligned(sums: Mapping[int, Tensor], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    moving = [p for p in parameters if p.grad is not None]
    return [sums[id(p)] if id(p) in sums else torch.zeros_like(p) for p in moving]
