"""Which parameters an optimizer holds, and the groups that a method wants of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from equivox.balancer import Balancer


def give_parameters(balancer: Balancer, optimizer: torch.optim.Optimizer) -> None:
    """Add the parameters that the method made, with the options that the fusion has.

    Refuses an optimizer that misses some of the model's.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    made = [p for p in balancer.made if id(p) not in held]
    made_ids = {id(p) for p in balancer.made}
    for name, parameter in balancer.model.named_parameters():
        if parameter.requires_grad and id(parameter) not in held | made_ids:
            raise ValueError(
                "All trainable parameters of the model should be in the optimizer. Found "
                f"`{name}` outside it. Build it with `balancer.parameters()`, or freeze what "
                "should not learn with `requires_grad_(False)`."
            )
    if made:
        options = {k: v for k, v in _group_of_fusion(balancer, optimizer).items() if k != "params"}
        optimizer.add_param_group({**options, "params": made})


def _group_of_fusion(balancer: Balancer, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The group whose options suit what is new: that of the fusion, where there is one."""
    fusion = {id(p) for p in balancer.model.fusion_parameters()}
    groups: list[dict[str, Any]] = optimizer.param_groups
    holding = [group for group in groups if any(id(p) in fusion for p in group["params"])]
    return (holding or groups)[0]


def give_groups(wanted: Sequence[Mapping[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    """Move parameters into groups of their own, with the options that the method wants.

    Each entry of `wanted` holds "params" and any of the optimizer's options, or "lr_scale", a
    factor on the learning rate that the parameters had. What is not named stays as it was.
    """
    for number, entry in enumerate(wanted):
        changes = {k: v for k, v in entry.items() if k not in ("params", "lr_scale")}
        changes["balancer_group"] = number  # so that attaching again changes nothing
        for group in list(optimizer.param_groups):
            if group.get("balancer_group") != number:
                _split(optimizer, group, entry["params"], changes, entry.get("lr_scale", 1.0))


def _split(
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    parameters: Sequence[nn.Parameter],
    changes: Mapping[str, Any],
    lr_scale: float,
) -> None:
    """Move those of the parameters that are in this group to a new one."""
    ids = {id(p) for p in parameters}
    moved = [p for p in group["params"] if id(p) in ids]
    if not moved:
        return
    rates: dict[str, Any] = {k: group[k] * lr_scale for k in ("lr", "initial_lr") if k in group}
    if "lr" in changes and "initial_lr" in group:  # a scheduler starts from it
        rates["initial_lr"] = changes["lr"]
    group["params"] = [p for p in group["params"] if id(p) not in ids]
    if not group["params"]:
        optimizer.param_groups.remove(group)
    optimizer.add_param_group({**group, **rates, **changes, "params": moved})
