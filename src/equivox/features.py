"""Features: what an encoder returns, and the few things done to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Feature = Any
"""A tensor, or a tuple or mapping of tensors: floating ones carry values, others (masks) facts."""

Features = dict[str, Feature]
"""One feature a modality, by the modality's name."""


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Apply `function` to every tensor of a nested tuple, list or mapping, of whatever type."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        parts = {key: map_tensors(function, part) for key, part in tree.items()}
        if type(tree) is dict or not isinstance(tree, MutableMapping):
            return parts
        result = copy.copy(tree)  # an output class that is also read by attribute
        for key, part in parts.items():
            result[key] = part
        return result
    if isinstance(tree, (tuple, list)):
        items = [map_tensors(function, part) for part in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


def map_values(function: Callable[[Tensor], Tensor], feature: Feature) -> Feature:
    """Apply `function` to the floating tensors of a feature; padding masks pass untouched."""
    return map_tensors(lambda x: function(x) if x.is_floating_point() else x, feature)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a nested tuple, list or mapping, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    parts: Sequence[Any] = ()
    if isinstance(tree, Mapping):
        parts = list(tree.values())
    elif isinstance(tree, (tuple, list)):
        parts = tree
    return [leaf for part in parts for leaf in leaves(part)]


def values(feature: Feature) -> Tensor:
    """The floating tensor of a feature, for example the tokens of `(tokens, padding_mask)`."""
    if isinstance(feature, Tensor):
        return feature
    found = [leaf for leaf in leaves(feature) if leaf.is_floating_point()]
    if not found:
        raise TypeError(
            f"A feature should hold a floating tensor. Found `{type(feature).__name__}`."
        )
    return found[0]


def padding(feature: Feature) -> Tensor | None:
    """The (batch, time) padding mask of a sequence feature, True where there is nothing, or None.

    A boolean mask is read as PyTorch's `key_padding_mask` (True = padding), an integer one as an
    `attention_mask` (1 = token).
    """
    if isinstance(feature, Tensor):
        return None
    shape = values(feature).shape[:2]
    for leaf in leaves(feature):
        if not leaf.is_floating_point() and leaf.shape == shape:
            return leaf if leaf.dtype == torch.bool else leaf == 0
    return None


def vector(feature: Feature) -> Float[Tensor, "batch features"]:
    """Pool a feature to one vector a sample.

    (batch, dim) stays as it is, (batch, time, dim) becomes its mean over the time steps that are
    not padding, (batch, channels, *space) its mean over space.
    """
    x = values(feature)
    if x.ndim <= 2:
        return x if x.ndim == 2 else x.unsqueeze(-1)
    if x.ndim > 3:
        return x.flatten(2).mean(-1)
    mask = padding(feature)
    if mask is None:
        return x.mean(1)
    nothing = mask.unsqueeze(-1)
    return x.masked_fill(nothing, 0).sum(1) / (~nothing).sum(1).clamp(min=1).to(x.dtype)


def project(linear: Callable[[Tensor], Tensor], feature: Feature, pool: bool = True) -> Tensor:
    """A linear map of the pooled feature, or, with `pool=False`, of every position of a dense one.

    (batch, channels, *space) becomes (batch, outputs, *space) without pooling.
    """
    if pool:
        return linear(vector(feature))
    return linear(values(feature).movedim(1, -1)).movedim(-1, 1)


def blanked(feature: Feature, kept: bool | Tensor, by: Tensor | None = None) -> Feature:
    """A feature with the rows outside `kept` replaced by zeros or by the value `by`.

    `kept` is a bool for the whole batch or a (batch,) mask. `by` stands for `values(feature)` and
    broadcasts over the batch; other floating tensors become zeros.
    """
    if kept is True:
        return feature
    main = None if by is None else values(feature)

    def blank(x: Tensor) -> Tensor:
        filler = torch.zeros_like(x) if by is None or x is not main else by.to(x).expand_as(x)
        if not isinstance(kept, Tensor):
            return filler
        return torch.where(kept.bool().view(-1, *[1] * (x.ndim - 1)), x, filler)

    return map_values(blank, feature)
