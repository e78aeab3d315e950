"""Shares: how sure one is of a share, however few samples it is of."""

from __future__ import annotations

import math

from torch import Tensor

from equivox.diagnosis.metric import Estimate, estimate

Z = 1.96
"""Standard errors of a 95 % interval."""


def share(rows: Tensor) -> Estimate:
    """The mean of (samples,) rows with a 95 % interval, Wilson's where each is zero or one.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). Resamples of few samples,
    or of equal ones, would have no width. Not for differences, whose rows may all be zero or one as
    well. Other rows, as those of several labels or positions a sample, have that of `estimate`.

    Source: Wilson (1927).

    >>> import torch
    >>> round(share(torch.ones(3)).low, 3)
    0.438
    """
    x = rows.detach().double().cpu()
    if not len(x) or not bool(((x == 0) | (x == 1)).all()):
        return estimate(x)
    p, more = float(x.mean()), Z**2 / len(x)
    centre, half = p + more / 2, math.sqrt(more * p * (1 - p) + more**2 / 4)
    low, high = ((centre + side * half) / (1 + more) for side in (-1, 1))
    return Estimate(p, max(low, 0.0), min(high, 1.0))
