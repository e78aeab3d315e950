"""The trace of the Fisher information: how much a network still learns from its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.functional.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float


def add_squares_(totals: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """S_p <- S_p + g_p², entry by entry and in place: one batch more.

    :raises ValueError: If there is not one gradient for each total.

    >>> totals = [torch.ones(2)]
    >>> add_squares_(totals, [torch.tensor([2.0, 3.0])])
    >>> totals
    [tensor([ 5., 10.])]
    """
    if len(totals) != len(gradients):
        raise ValueError(
            "There should be one gradient for each total. Found "
            f"{len(gradients)} gradients and {len(totals)} totals."
        )
    if totals:
        wide = [at_least_float32(gradient) for gradient in gradients]
        torch._foreach_addcmul_(list(totals), wide, wide)


def fisher_trace(totals: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Tr(F) = sum_p mean(S_p): squared gradients, averaged within each tensor, over all tensors.

    It is the trace of the empirical Fisher information up to a factor, so that only relative
    changes have a meaning.

    :param totals: S_p, the squared gradients of each weight p, summed over batches.

    Source: Adaptive Unimodal Regulation (CVPR 2025).

    >>> fisher_trace([torch.tensor([1.0, 3.0]), torch.tensor([[4.0]])])
    tensor(6.)
    """
    if not totals:
        return torch.zeros(())
    return torch.stack([at_least_float32(total).mean() for total in totals]).sum()


def relative_growth(
    traces: Float[Tensor, " epochs"], smooth: int = 1, undefined: float = 0.0
) -> Float[Tensor, ""]:
    """D = (A - B) / A, with A the mean of the last `smooth` values and B that of those before.

    Without smoothing it compares the last two epochs.

    :param traces: `smooth + 1` values or more, the latest one last.
    :param undefined: What D is where A is zero.
    :raises ValueError: If there are fewer values than that.

    Source: Adaptive Unimodal Regulation (CVPR 2025), Eq. 5.

    >>> relative_growth(torch.tensor([2.0, 3.0]))
    tensor(0.3333)
    """
    if not 1 <= smooth < len(traces):
        raise ValueError(
            "`traces` should hold `smooth + 1` values or more, with `smooth` at least 1. Found "
            f"{len(traces)} values and `smooth = {smooth}`."
        )
    now, before = traces[-smooth:].mean(), traces[-smooth - 1 : -1].mean()
    growth = (now - before) / torch.where(now == 0, torch.ones_like(now), now)
    return torch.where(now == 0, torch.full_like(now, undefined), growth)
