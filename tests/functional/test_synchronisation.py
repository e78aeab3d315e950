"""What runs in a training step never asks the device for a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equivox.functional import (
    class_means,
    cosine_logits,
    entropy,
    flat_dot,
    flat_norm,
    imbalance,
    interactions,
    mean_of_others,
    min_norm_pair,
    min_norm_weights,
    prototype_logits,
    ratio_to_others,
    scale_gradient,
    shapley_values,
    subsets,
    supervised_nce,
)

READING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero"}


class Watch(TorchDispatchMode):
    """Notes every operation that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        self.found += [name] if name in READING else []
        return func(*args, **(kwargs or {}))


def operations() -> dict[str, Callable[[], Any]]:
    z, y = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 1, 0])
    scores = {"a": torch.tensor(2.0), "b": torch.tensor(1.0), "c": torch.tensor(0.5)}
    values = {subset: torch.randn(4, 2) for subset in subsets("abc")}
    seen = torch.tensor([True, False])
    return {
        "class_means": lambda: class_means(z, y, 2),
        "cosine_logits": lambda: cosine_logits(z, torch.randn(2, 3), torch.tensor(10.0)),
        "entropy": lambda: entropy(z),
        "flat_dot": lambda: flat_dot([z, z], [z, z]),
        "flat_norm": lambda: flat_norm([z, z]),
        "imbalance": lambda: imbalance(scores),
        "interactions": lambda: interactions(values, "abc"),
        "mean_of_others": lambda: mean_of_others(scores),
        "min_norm_pair": lambda: min_norm_pair(*scores.values()),
        "min_norm_weights": lambda: min_norm_weights(torch.eye(3)),
        "prototype_logits": lambda: prototype_logits(z, torch.randn(2, 3), seen),
        "ratio_to_others": lambda: ratio_to_others(scores),
        "scale_gradient": lambda: scale_gradient(z, torch.tensor(0.5)).sum().backward(),
        "shapley_values": lambda: shapley_values(values, "abc"),
        "supervised_nce": lambda: supervised_nce(z, z, y).backward(),
    }


@pytest.mark.parametrize("name", operations())
def test_no_value_is_read(name: str) -> None:
    operation = operations()[name]
    with Watch() as watch:
        operation()
    assert watch.found == []


def test_the_watch_sees_a_value_being_read() -> None:
    with Watch() as watch:
        bool(torch.tensor(1.0) > 0)
        torch.ones(2).nonzero()
    assert watch.found == ["aten::_local_scalar_dense", "aten::nonzero"]
