"""Recorder: the dynamics of a training, noted after every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from equivox.arguments import number
from equivox.diagnosis import epochs
from equivox.diagnosis.dynamics import Dynamics, overfitting_ratio
from equivox.diagnosis.epochs import Found
from equivox.diagnosis.onset import Number
from equivox.diagnosis.updates import Updates

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.bench.loop import Training
    from equivox.data import MultimodalData


class Recorder:
    """Records the dynamics of a training; see `Dynamics` for what.

    Call `record()` after every epoch, and `attach()` before the first for what is measured by
    update. The training, its random state and its results stay as they are: each epoch costs one
    more pass over each loader in eval mode, each update a copy of the encoders' weights and a few
    sums that stay on the device.

    Arguments:
        balancer: of the training.
        train, validation: loaders to measure on, of the whole splits or of a part; `validation` is
            the balancer's own where not given, `train` is left out.
        window: how many epochs the `overfitting_ratio` looks back; from the first epoch at the
            start. The super-epoch of online G-Blending is 5.
        every: clusters and probes, which cost most, are recorded every so many epochs only.
        earlier: what was recorded of the training before it was cut. Sums over updates begin anew.

    >>> from torch import nn
    >>> from equivox import Classification, Concat, Multimodal
    >>> from equivox.balancer import Balancer
    >>> net = {"a": nn.Linear(3, 4), "b": nn.Linear(5, 4)}
    >>> balancer = Balancer(Multimodal(net, Concat({"a": 4, "b": 4}, 2)), task=Classification(2))
    >>> optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    >>> batch = {"a": torch.randn(6, 3), "b": torch.randn(6, 5)}, torch.tensor([0, 1, 0, 1, 0, 1])
    >>> recorder = Recorder(balancer, validation=[batch])
    >>> optimizer = recorder.attach()
    >>> balancer(*batch).backward()
    >>> optimizer.step()
    >>> numbers = recorder.record()
    >>> len(recorder.dynamics.curves["gradient_norm"]["a"])
    1
    """

    def __init__(
        self,
        balancer: Balancer,
        train: Iterable[Any] | None = None,
        validation: Iterable[Any] | None = None,
        *,
        window: int = 5,
        every: int = 1,
        earlier: Dynamics | None = None,
    ) -> None:
        self.balancer = balancer
        self.window = number("window", window, least=1)
        self.every = number("every", every, least=1)
        held_out = balancer.validation if validation is None else validation
        loaders = {"train": train, "validation": held_out}
        self.loaders = {split: x for split, x in loaders.items() if x is not None}
        earlier = earlier or Dynamics(balancer.model.modalities, (), {})
        self.epochs = list(earlier.epochs)
        self._curves = {n: {m: list(x) for m, x in by.items()} for n, by in earlier.curves.items()}
        self._updates = Updates(balancer.model)
        self._handles: list[Any] = []

    def attach(self, optimizer: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
        """Measure this optimizer's steps from now on; that of the balancer where not given.

        After `balancer.attach`, so that gradients are seen as the method leaves them.

        :raises RuntimeError: Where there is no optimizer.
        """
        optimizer = self.balancer.optimizer if optimizer is None else optimizer
        if optimizer is None:
            raise RuntimeError(
                "A recorder measures the steps of an optimizer. Found none. Call "
                "`balancer.attach(optimizer)` first, or pass it."
            )
        self.detach()
        self._handles = [
            optimizer.register_step_pre_hook(self._updates.before),
            optimizer.register_step_post_hook(self._updates.after),
        ]
        return optimizer

    def detach(self) -> None:
        """Measure no more steps."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def record(self) -> dict[str, float]:
        """Measure the network as it is, after an epoch.

        :returns: The epoch's numbers by "curve/modality", for a log.
        """
        balancer = self.balancer
        rows = {
            split: balancer.collect(x, lambda o, b: epochs.rows(balancer, o, b))
            for split, x in self.loaders.items()
        }
        found = self._updates.read()
        for split, part in rows.items():
            found |= {
                f"{name}_{split}": x for name, x in epochs.answered(balancer.task, part).items()
            }
        if len(self.epochs) % self.every == 0:
            found |= epochs.encoded(balancer.task, rows)
        if len(rows) == 2:
            found["overfitting_ratio"] = self._overfitting(found)
        return self._append(found)

    @property
    def dynamics(self) -> Dynamics:
        """What was recorded so far."""
        known = {
            name: {m: tuple(x) for m, x in by.items() if any(y is not None for y in x)}
            for name, by in self._curves.items()
        }
        curves = {name: by for name, by in known.items() if by}
        return Dynamics(self.balancer.model.modalities, tuple(self.epochs), curves)

    def to_json(self) -> dict[str, Any]:
        """What was recorded so far, in plain values."""
        return self.dynamics.to_json()

    def _overfitting(self, found: Found) -> dict[str, Number]:
        """Against the record `window` records earlier, or the first one."""
        if not self.epochs:
            return {}
        then = max(0, len(self.epochs) - self.window)
        return {
            m: overfitting_ratio(self._losses(m, then), (train, found["loss_validation"][m]))
            for m, train in found["loss_train"].items()
        }

    def _losses(self, modality: str, place: int) -> tuple[Number, Number]:
        """A record's, on the training and on the validation data."""
        curves = (self._curves.get(f"loss_{split}", {}) for split in ("train", "validation"))
        train, held_out = (by[modality][place] if modality in by else None for by in curves)
        return train, held_out

    def _append(self, found: Found) -> dict[str, float]:
        """Put the numbers at the ends of their curves, which all stay equally long."""
        count = len(self.epochs)
        last = self.epochs[-1] if self.epochs else -1
        self.epochs.append(max(self.balancer.progress.epoch, last + 1))
        flat = {}
        for name, by in found.items():
            for m, x in by.items():
                curve = self._curves.setdefault(name, {}).setdefault(m, [])
                curve += [None] * (count - len(curve))
                curve.append(x if x is not None and math.isfinite(x) else None)
                if curve[-1] is not None:
                    flat[f"{name}/{m}"] = curve[-1]
        for by_modality in self._curves.values():
            for curve in by_modality.values():
                curve += [None] * (count + 1 - len(curve))
        return flat


class Recording:
    """A `measure` of `equivox.bench.training.train`: a `Recorder` from the first update on.

    What it notes joins the records of the run; `Dynamics.of_records` reads them there.

    Arguments: as of `Recorder`.

    Attributes: `recorder`, None before the training begins.
    """

    def __init__(self, *, window: int = 5, every: int = 1) -> None:
        self.window = number("window", window, least=1)
        self.every = number("every", every, least=1)
        self.recorder: Recorder | None = None

    def begin(self, training: Training) -> None:
        """Attach to a training that is about to begin, or to go on."""
        from equivox.bench.parallel import measuring_loader

        balancer = training.balancer
        self.recorder = Recorder(
            balancer,
            *(measuring_loader(training.data, split) for split in ("train", "validation")),
            window=self.window,
            every=self.every,
            earlier=Dynamics.of_records(training.records, balancer.model.modalities),
        )
        self.recorder.attach()

    def __call__(self, balancer: Balancer, data: MultimodalData) -> dict[str, float]:
        if self.recorder is None:
            raise RuntimeError(
                "A recording is of a training. Found none. Pass it as `train(..., measure=)`."
            )
        return self.recorder.record()
