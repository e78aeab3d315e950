"""What the weight between two losses does to held-out data, tried on a copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.features import map_tensors
from equivox.functional.bilevel import hypergradient, mean_curvature
from equivox.method import Batch
from equivox.step import Step

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.run import Run

Losses = Callable[[Step], tuple[Tensor, Tensor]]


def slope_ahead(run: Run, losses: Losses, alpha: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """d L / d alpha on the first held-out batch, after a step on the first training batch.

    The step is of plain gradient descent with the optimizer's rate, on (1 - alpha) L + alpha A. In
    train mode; the model that is in training, its statistics included, stays as it is.

    :param losses: The two losses (L, A) of a step.
    :raises RuntimeError: Where no optimizer is attached.
    """
    model = copy.deepcopy(run.model).train()
    held_out, train = (_first(loader) for loader in (run.validation, run.loader))
    after = partial(_losses, run, model, losses)
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate = _learning_rate(run)
    return hypergradient(partial(after, train), partial(after, held_out), parameters, alpha, rate)


def released_slope(
    run: Run, losses: Losses, alpha: Float[Tensor, ""], samples: int = 8
) -> Float[Tensor, ""]:
    """What LFM (NeurIPS 2024) was released with instead, on a few held-out samples.

    See `mean_curvature`. In train mode before the first epoch and in eval mode later, in which
    validation left the released model.
    """
    model = copy.deepcopy(run.model).train(run.number == 0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    few = _first(run.validation, samples)
    return mean_curvature(partial(_losses, run, model, losses, few), parameters, alpha)


def _losses(run: Run, model: Multimodal, losses: Losses, batch: Batch) -> tuple[Tensor, Tensor]:
    moved = batch.to(next(model.parameters()).device)
    step = Step(model, run.task, moved, run.number, run.shuffle)
    step.output = model(moved.inputs)
    return losses(step)


def _first(loader: Any, count: int | None = None) -> Batch:
    """A loader's first batch, or its first `count` samples."""
    batch = Batch.of(next(iter(loader)))
    inputs, target = map_tensors(lambda x: x[:count], (batch.inputs, batch.target))
    return batch.with_(inputs=inputs, target=target)


def _learning_rate(run: Run) -> float:
    if run.balancer.optimizer is None:
        raise RuntimeError(
            "A learned schedule looks one step of the optimizer ahead. Found no optimizer. Call "
            "`optimizer = balancer.attach(optimizer)` before training."
        )
    return float(run.balancer.optimizer.param_groups[0]["lr"])
