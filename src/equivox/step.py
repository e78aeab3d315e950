"""What the stages see: a step (one training forward) and an update (one optimizer step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.distributed import rank, summed, world
from equivox.features import leaves

if TYPE_CHECKING:
    from equivox.method import Batch
    from equivox.model import Multimodal, Output
    from equivox.task import Task

Rows = Tensor | Mapping[str, Tensor]
Means = Any
Evidence = dict[tuple[int, str], dict[str, Tensor]]


def global_means(rows: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """The mean of each list of rows over all of them and all ranks: sums first, then the ratio."""
    sums = [torch.stack([part.sum() for part in parts]).sum() for parts in rows.values()]
    counts = [sum(part.numel() for part in parts) for parts in rows.values()]
    if world() > 1:
        # Filled on the device: a copy from the host would wait for it.
        filled = torch.stack([s.new_full((), count) for s, count in zip(sums, counts, strict=True)])
        totals = summed([torch.stack(sums), filled])
        return dict(zip(rows, (totals[0] / totals[1]).unbind(), strict=True))
    return {name: s / count for name, s, count in zip(rows, sums, counts, strict=True)}


class Step:
    """One training forward: a micro-batch on its way to the loss.

    Attributes: `batch`, `model`, `task`, `output` (raw features; logits from `losses` on), `epoch`,
    `weight` ((batch,) sample weights, or None).
    """

    def __init__(
        self, model: Multimodal, task: Task, batch: Batch, epoch: int, generator: torch.Generator
    ) -> None:
        self.model = model
        self.task = task
        self.batch = batch
        self.epoch = epoch
        self.output: Output
        self.weight: Tensor | None = None
        self.evidence: Evidence = {}
        self.link = 0  # whose stage runs: the methods of a chain do not see each other's evidence
        self._generator = generator

    @property
    def target(self) -> Any:
        return self.batch.target

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of this batch."""
        return tuple(self.output.features)

    def there(self) -> Tensor | None:
        """Which modalities each sample has, (batch, modalities) booleans; None where it has all.

        By what the batch holds, its `present` entry, and the plan of the epoch.
        """
        batch, names = self.batch, self.model.modalities
        present = batch.inputs.get("present", {})
        if batch.keep is None and not present and len(self.modalities) == len(names):
            return None
        some = leaves(self.output.features)[0]
        keep = some.new_ones(len(some), len(names)) if batch.keep is None else batch.keep
        columns = [present.get(m, True) if m in self.modalities else False for m in names]
        whole = torch.ones(len(some), dtype=torch.bool, device=some.device)
        return torch.stack([whole & c for c in columns], 1) & keep.bool()

    def loss(self, logits: Tensor, target: Any = None) -> Tensor:
        """The task's loss, a scalar; with sample weights, their sum over the global weight."""
        target = self.batch.target if target is None else target
        if self.weight is None:
            return self.task.loss(logits, target)
        return self.average(self.task.loss(logits, target, reduction="none"))

    def average(self, rows: Tensor) -> Tensor:
        """The mean of (batch,) rows of a loss of the method's own, weighted as `loss` is."""
        if self.weight is None:
            return rows.mean()
        total = summed([self.weight.sum()])[0]
        # Wrappers average gradients over ranks, hence the factor.
        share = torch.where(total > 0, world() / total, torch.zeros_like(total))
        return (rows * self.weight).sum() * share

    def weigh(self, rows: Tensor) -> None:
        """Multiply the sample weights by these, (batch,)."""
        self.weight = rows if self.weight is None else rows * self.weight

    def score(self, logits: Tensor, target: Any = None) -> Tensor:
        """How well each sample is answered: (batch,) in [0, 1], detached, float32."""
        return self.task.score(logits, self.batch.target if target is None else target)

    def mean(self, rows: Rows) -> Means:
        """The mean of (batch,) rows over this step and all ranks, by name for a mapping."""
        named = rows if isinstance(rows, Mapping) else {"": rows}
        means = global_means({name: [part.detach().float()] for name, part in named.items()})
        return means if isinstance(rows, Mapping) else means[""]

    def note(self, name: str, rows: Rows) -> None:
        """Keep (batch,) rows as evidence for the update that this step belongs to."""
        named = rows if isinstance(rows, Mapping) else {"": rows}
        found = {key: part.detach().float() for key, part in named.items()}
        self.evidence[self.link, name] = found

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws, equal on every rank."""
        device = self._generator.device
        return torch.rand(shape, generator=self._generator, device=device)

    def uniform_rows(self, columns: int) -> Tensor:
        """(batch, columns) uniform draws: this rank's rows of one draw for the global batch."""
        rows = leaves(self.output.features)[0].shape[0]
        return self.uniform(world() * rows, columns)[rank() * rows : (rank() + 1) * rows]


class Update:
    """One optimizer step, after the backward passes of all its steps.

    Attributes: `model`, `epoch`, `number` (of the update, from 0), `generator` (equal on every
    rank), and `per_loss`: for methods with `per_loss_gradients`, the gradients of each loss by loss
    name and modality (`"shared"` for the parameters of several encoders), aligned with
    `parameters(modality)`.
    """

    def __init__(
        self,
        model: Multimodal,
        owned: Mapping[str, Sequence[nn.Parameter]],
        epoch: int,
        number: int,
        generator: torch.Generator,
    ) -> None:
        self.model = model
        self.epoch = epoch
        self.number = number
        self.generator = generator
        self.per_loss: dict[str, dict[str, list[Tensor]]] = {}
        self._owned = owned
        self.link = 0
        self._evidence: list[Evidence] = []
        self._means: dict[tuple[int, str], Means] = {}

    def add(self, evidence: Evidence) -> None:
        """Take the evidence of one more step."""
        self._evidence.append(evidence)

    def rows(self, name: str) -> dict[str, list[Tensor]]:
        """The noted rows of every step, by key."""
        found: dict[str, list[Tensor]] = {}
        for evidence in self._evidence:
            for key, part in evidence.get((self.link, name), {}).items():
                found.setdefault(key, []).append(part)
        return found

    def mean(self, name: str) -> Means:
        """The mean of noted rows over all steps of the update and all ranks."""
        key = self.link, name
        if key not in self._means:
            means = global_means(self.rows(name))
            self._means[key] = means[""] if set(means) == {""} else means
        return self._means[key]

    def parameters(self, modality: str) -> list[nn.Parameter]:
        """The parameters of one encoder that have a gradient."""
        return [p for p in self._owned[modality] if p.grad is not None]

    def gradient(self, modality: str) -> list[Tensor]:
        """The gradients of one encoder, to be changed in place."""
        return [p.grad for p in self._owned[modality] if p.grad is not None]
