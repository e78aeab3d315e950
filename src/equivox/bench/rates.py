"""Learning rates from epoch to epoch: torch's own schedulers by short names."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from equivox.errors import nearest

SCHEDULES: dict[str, type[LRScheduler]] = {
    "step": lr_scheduler.StepLR,
    "multistep": lr_scheduler.MultiStepLR,
    "exponential": lr_scheduler.ExponentialLR,
    "cosine": lr_scheduler.CosineAnnealingLR,
}


def scheduler(
    optimizer: torch.optim.Optimizer,
    name: str | None,
    options: Mapping[str, Any],
    warmup: int,
    epochs: int,
) -> LRScheduler | None:
    """What to call `step()` of after every epoch; None where the rates stay as they are.

    Arguments:
        optimizer: whose rates change, of all its groups.
        name: one of `SCHEDULES`; None for none.
        options: of the scheduler, by torch's names. `cosine` ends with the last epoch unless they
            say otherwise.
        warmup: epochs over which the rates first rise in even steps; the schedule follows.
        epochs: of the training.

    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    >>> rates = scheduler(optimizer, "step", {"step_size": 1, "gamma": 0.5}, warmup=2, epochs=4)
    >>> for _ in range(4):
    ...     print(round(optimizer.param_groups[0]["lr"], 3))
    ...     optimizer.step()
    ...     rates.step()
    0.1
    0.2
    0.3
    0.15
    """
    parts: list[LRScheduler] = []
    if warmup:
        start = 1 / (warmup + 1)
        parts.append(lr_scheduler.LinearLR(optimizer, start, total_iters=warmup))
    if name is not None:
        options = dict(options)
        if name == "cosine":
            options.setdefault("T_max", max(epochs - warmup, 1))
        parts.append(SCHEDULES[name](optimizer, **options))
    if len(parts) == 2:
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[warmup])
    return parts[0] if parts else None


def restore(rates: LRScheduler, state: Mapping[str, Any]) -> None:
    """Load the state that a checkpoint gave back, in which torch's counters are dictionaries."""
    for part in state.get("_schedulers", [state]):
        if "milestones" in part:
            part["milestones"] = Counter(part["milestones"])
    rates.load_state_dict(dict(state))


def check(name: str | None, options: Mapping[str, Any]) -> None:
    """Refuse options that the schedule does not have, lacks, or cannot work with."""
    if name is None:
        if options:
            raise ValueError(
                f"`schedule_options` are those of a `schedule`. Found {', '.join(options)} and no "
                f"schedule. Pass one of {', '.join(SCHEDULES)}."
            )
        return
    every = inspect.signature(SCHEDULES[name]).parameters
    known = [option for option in every if option not in ("optimizer", "last_epoch")]
    for option in options:
        if option not in known:
            raise ValueError(
                f"Options of a schedule should be those of `{SCHEDULES[name].__name__}`. Found "
                f"`{option}`. {nearest(option, known)}"
            )
    tried = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        rates = scheduler(tried, name, options, warmup=0, epochs=2)
        tried.step()
        if rates is not None:
            rates.step()
        rate = tried.param_groups[0]["lr"]
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"the rate becomes {rate}")
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"Options of a schedule should be what `{SCHEDULES[name].__name__}` works with. Found "
            f"{dict(options)}: {error}."
        ) from error
