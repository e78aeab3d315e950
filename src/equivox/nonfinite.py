"""Finding non-finite numbers without waiting for the device."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.features import Features, leaves

if TYPE_CHECKING:
    from equivox.step import Step


class Watch:
    """The loss of a step, that is read when it has arrived in host memory: one update late."""

    def __init__(self) -> None:
        self._pending: tuple[Tensor, torch.cuda.Event | None, Callable[[], str]] | None = None

    def __deepcopy__(self, memo: Any) -> Watch:
        return Watch()  # a copy has made no step

    def set(self, loss: Tensor, report: Callable[[], str]) -> None:
        """Note a loss, and who can tell more about it."""
        noted = loss.detach()
        if noted.dtype is not torch.float32:
            noted = noted.float()
        if not noted.is_cuda:
            self._pending = (noted, None, report)
            return
        host = torch.empty((), dtype=torch.float32, pin_memory=True)
        host.copy_(noted, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = (host, event, report)

    def read(self, wait: bool = False) -> None:
        """Raise FloatingPointError if the noted loss was not finite; `wait` for it if asked to."""
        if self._pending is None:
            return
        loss, event, report = self._pending
        if event is not None and wait:
            event.synchronize()
        elif event is not None and not event.query():
            return
        self._pending = None
        # The loss is in host memory. Read past torch, so that it is plain to see: no device waits.
        if not math.isfinite(ctypes.c_float.from_address(loss.data_ptr()).value):
            raise FloatingPointError(report())


def non_finite_report(features: Features, step: Step, number: int) -> str:
    """Which modality's features hold NaN or infinity, in which samples, at which step."""
    found = []
    for name, feature in features.items():
        bad = ~torch.stack([_finite_rows(z) for z in leaves(feature)]).all(0)
        if bool(bad.any()):
            rows = bad.nonzero().flatten().tolist()
            index = step.batch.index
            samples = rows if index is None else index.cpu()[rows].tolist()
            kind = "rows of the batch" if index is None else "samples"
            found.append(f"`{name}` in {kind} {samples[:10]}")
    what = (
        "non-finite features of " + ", ".join(found)
        if found
        else "finite features of all modalities"
    )
    return (
        f"The loss should be finite. Found {what} at training step {number} (epoch {step.epoch}). "
        "Look at these samples, lower the learning rate, clip with `Balancer(..., clip=…)` or "
        '`--clip`, or leave such updates out with `Balancer(..., nonfinite="skip")`.'
    )


def _finite_rows(x: Tensor) -> Tensor:
    return x.isfinite().flatten(1).all(1) if x.ndim > 1 else x.isfinite()
