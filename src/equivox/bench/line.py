"""What a comparison says of one method on one data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from equivox.bench.statistics import Difference, Interval

NOTHING = Interval(math.nan, math.nan, math.nan, 0, "none")


@dataclass(frozen=True)
class Line:
    """A method on a data set, over its seeds; differences are None where there is no opponent.

    Attributes:
        data, method: as they are written in `equivox compare`; `title` is the method's own name,
            `category` its kind, `yardstick` for the simple baselines.
        tuned: trials that chose its hyper-parameters.
        metric: the mean on the test data, larger is better; `iqm` the interquartile mean; `last`
            that of the last epoch.
        over_joint, over_yardstick: differences to joint training and to the best yardstick;
            `over_tuned`, on a board of defaults, that to the best tuned one.
        bca: the BCa bootstrap interval of `over_yardstick`.
        p_holm, p_wilcoxon: of the paired t-test and the Wilcoxon signed-rank test against the best
            yardstick, each corrected by Holm over the methods of the board. With five seeds the
            latter is 0.0625 at least *before* the correction, so it cannot be significant.
        improvement: the probability that a run is better than one of the best yardstick.
        mechanism: the difference to the yardstick `reference`.
        harm: the share of seeds that are significantly worse than the best yardstick, by sample.
        probe: mean metric of a linear model of each encoder's features.
        imbalance: mean absolute difference of the modalities' Shapley values.
        time: seconds of training, relative to joint training with the same seed.
        flops, memory, step: as ratios to joint training, see `equivox.bench.cost`; NaN where not
            measured. Lines of tuned hyper-parameters have those of the defaults.
        failed: seeds that diverged or were refused.
        lacking: why the line is incomplete; empty where it is complete.
    """

    data: str
    method: str
    title: str
    category: str
    tuned: int
    metric: Interval
    iqm: Interval
    last: float
    over_joint: Difference | None
    over_yardstick: Difference | None
    over_tuned: Difference | None
    bca: tuple[float, float]
    p_holm: float
    p_wilcoxon: float
    improvement: Interval
    mechanism: Difference | None
    reference: str
    harm: float
    probe: Mapping[str, float]
    imbalance: float
    time: float
    flops: float
    memory: float
    step: float
    failed: int
    lacking: str

    @property
    def yardstick(self) -> bool:
        """Whether it is a simple baseline."""
        return self.category == "yardstick"

    @property
    def complete(self) -> bool:
        """Whether nothing is lacking."""
        return not self.lacking
