"""The units of a network's weights: filters, attention heads, rows, hidden units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ROWS = (*_CONVOLUTIONS, nn.Linear)

View = tuple[int, int, int, int]
"""The shape of a weight as (draws, outer, units, inner)."""


class Units(NamedTuple):
    """A weight, and its shape as (draws, outer, units, inner).

    Units compete within a draw; a unit is all entries over `outer` and `inner`.
    """

    parameter: Tensor
    view: View


def units_of(encoder: nn.Module) -> list[Units]:
    """The weights of an encoder that are made of units, which are

    output filters of convolutions, but for the first one (the stem) and those of a "downsample" or
    "shortcut"; heads of `nn.MultiheadAttention`, rows of the query, key and value each, columns of
    the output projection; hidden units of `nn.LSTM`, `nn.GRU` and `nn.RNN`; output rows of
    `nn.Linear`, but for those inside transformer layers.

    >>> [unit.view for unit in units_of(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))]
    [(1, 1, 4, 3)]
    """
    modules = dict(encoder.named_modules())
    stem = next((m for m in modules.values() if isinstance(m, _CONVOLUTIONS)), None)
    layers = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)
    inside = {id(x) for m in modules.values() if isinstance(m, layers) for x in m.modules()}
    found: list[Units] = []
    for name, module in modules.items():
        skip = module is stem or "downsample" in name or "shortcut" in name
        if isinstance(module, nn.MultiheadAttention):
            found += _heads(module)
        elif isinstance(module, nn.RNNBase):
            found += _hidden(module)
        elif id(module) not in inside and not skip and isinstance(module, _ROWS):
            found.append(_rows(module.weight))
    return found


def _rows(weight: Tensor) -> Units:
    return Units(weight, (1, 1, weight.shape[0], weight[0].numel()))


def _heads(attention: nn.MultiheadAttention) -> Iterator[Units]:
    heads = attention.num_heads
    packed = attention.in_proj_weight
    weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    for weight in weights if packed is None else (packed,):
        draws = 1 if packed is None else 3
        yield Units(weight, (draws, 1, heads, weight.numel() // (draws * heads)))
    out = attention.out_proj.weight
    yield Units(out, (1, out.shape[0], heads, out.shape[1] // heads))


def _hidden(recurrent: nn.RNNBase) -> Iterator[Units]:
    for name, weight in recurrent.named_parameters():
        if name.startswith(("weight_ih", "weight_hh")):
            size = recurrent.hidden_size
            yield Units(weight, (1, weight.shape[0] // size, size, weight.shape[1]))


def spread(mask: Tensor, view: View, like: Tensor) -> Tensor:
    """A mask (draws, units) for every entry of a weight, in its shape."""
    return mask[:, None, :, None].expand(view).reshape(like.shape)


def unit_shares(gradient: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """p (draws, units), each unit's share of the squared gradient, and whether it is defined.

    >>> p, known = unit_shares(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), (1, 1, 2, 2))
    >>> p, known
    (tensor([[0.3333, 0.6667]]), tensor([[True]]))
    """
    squares = gradient.detach().float().square().reshape(view).sum((1, 3))
    total = squares.sum(-1, keepdim=True)
    known = (total > 0) & total.isfinite()
    return torch.where(known, squares / total, 1 / squares.shape[-1]), known
