"""What a network gets right on a split, and what the modalities' shares of its logits do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.method import Batch
from equivox.model import Output

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.task import Task


def collected(balancer: Balancer, loader: Iterable[Any]) -> dict[str, Any]:
    """By sample: `logits` of the prediction, `target`, and by modality `branches`, its share of the
    fused logits, and `unimodal`, the logits of its own head where there is one.
    """

    def rows(output: Output, batch: Batch) -> dict[str, Any]:
        return {
            "logits": balancer.method.predict(output),
            "target": batch.target,
            "branches": output.split,
            "unimodal": output.unimodal,
        }

    found: dict[str, Any] = balancer.collect(loader, rows)
    return found


def metrics(task: Task, logits: Tensor, target: Tensor) -> dict[str, float]:
    """The task's loss and metrics."""
    found = {"loss": task.loss(logits, target), **task.metrics().to(target.device)(logits, target)}
    return {name: float(value) for name, value in found.items()}


def shares(task: Task, rows: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The task's main metric of `branches` and `unimodal`, by modality."""
    return {
        part: {m: metrics(task, x, rows["target"])[task.monitor] for m, x in rows[part].items()}
        for part in ("branches", "unimodal")
    }
