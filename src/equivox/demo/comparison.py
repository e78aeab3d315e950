"""Runs of several methods on one data set, compared seed by seed, and what follows from them."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from equivox.bench.labels import JOINT
from equivox.bench.measure import Measurement
from equivox.bench.statistics import Difference, Interval, interval, paired

if TYPE_CHECKING:
    from equivox.diagnosis import Diagnosis

ALONE = "alone: "
"""What a row is called that trains one modality by itself, followed by the modality."""

MARGIN = 0.01
"""One point of accuracy: what is smaller is not called a gain, however sure it is."""

PROBE_MARGIN = 0.02
"""Two points of a probe's accuracy: what is smaller is not called neglect."""


@dataclass(frozen=True)
class Run:
    """One finished training in plain values.

    Attributes: `row`, the method's name or `alone: <modality>`; `epoch`, chosen on the validation
    data, whose metric is `validation`; `seconds` of a median epoch of training without measuring,
    None where it was not timed by itself; `curves`, each encoder's probe on the validation data,
    epoch by epoch; `probe`, a logistic one on the test data after the last epoch, of what is
    compared: joint training and each modality alone; `test`, measured with the weights of the
    chosen epoch; `diagnosis` of the network, where one was made, which is not a part of the JSON.
    """

    data: str
    row: str
    seed: int
    epoch: int
    validation: float
    seconds: float | None
    curves: Mapping[str, Sequence[float]]
    probe: Mapping[str, float]
    test: Measurement
    diagnosis: Diagnosis | None = None

    def to_json(self) -> dict[str, Any]:
        """The run in plain values."""
        plain = asdict(replace(self, diagnosis=None))
        del plain["diagnosis"]
        return plain


@dataclass(frozen=True)
class Row:
    """A method over all seeds: the metric, its gains, and its cost as a multiple of joint's.

    `cost` is None where the method was not timed by itself.
    """

    name: str
    metric: Interval
    over_joint: Difference
    over_yardstick: Difference
    cost: float | None


@dataclass(frozen=True)
class Encoder:
    """What a linear probe reads at the end from an encoder trained alone, and in joint training."""

    modality: str
    alone: Interval
    joint: Interval
    gap: Difference
    contribution: Interval

    @property
    def neglected(self) -> bool:
        """Whether the joint network falls short by the margin and by more than the noise."""
        return exceeds(self.gap, PROBE_MARGIN)


def exceeds(difference: Difference, margin: float) -> bool:
    """At least the margin, and the interval is above zero where there is one."""
    sure = difference.low > 0 or math.isnan(difference.low)
    return difference.mean >= margin and sure


class Comparison:
    """All runs on one data set, every row with the same seeds.

    :param runs: Of one data set; rows keep the order of their first run.
    :param yardsticks: The rows that are simple baselines, besides each modality alone and joint
        training.
    :raises ValueError: Where there is no joint run, or rows have different seeds.
    """

    def __init__(self, runs: Sequence[Run], yardsticks: Sequence[str]) -> None:
        self.data = runs[0].data if runs else ""
        self.runs: dict[str, dict[int, Run]] = {}
        for run in runs:
            self.runs.setdefault(run.row, {})[run.seed] = run
        self.seeds = _seeds(self.runs)
        self.modalities = tuple(self.runs[JOINT][self.seeds[0]].probe)
        alone = [ALONE + m for m in self.modalities]
        self.yardsticks = [r for r in self.runs if r in (JOINT, *alone, *yardsticks)]
        self.best = max(self.yardsticks, key=self.validation)

    def validation(self, row: str) -> float:
        """The metric on the validation data, mean over seeds."""
        return plain.fmean(run.validation for run in self.runs[row].values())

    def metric(self, row: str) -> dict[int, float]:
        """The metric on the test data, by seed."""
        return {seed: run.test.metric for seed, run in self.runs[row].items()}

    def row(self, name: str) -> Row:
        """A method's line of the table."""
        metric = self.metric(name)
        times = [(self.runs[name][s].seconds, self.runs[JOINT][s].seconds) for s in self.seeds]
        ratios = [mine / joint for mine, joint in times if mine and joint]
        return Row(
            name,
            interval(list(metric.values())),
            paired(metric, self.metric(JOINT)),
            paired(metric, self.metric(self.best)),
            plain.median(ratios) if ratios else None,
        )

    @property
    def table(self) -> list[Row]:
        """Every row."""
        return [self.row(name) for name in self.runs]

    def probe(self, row: str, modality: str) -> dict[int, float]:
        """The probe of one encoder on the test data at the end of training, by seed."""
        return {seed: run.probe[modality] for seed, run in self.runs[row].items()}

    def contribution(self, row: str, modality: str) -> Interval:
        """The Shapley contribution of one modality on the test data."""
        found = self.runs[row].values()
        return interval([run.test.contribution[modality] for run in found])

    def curve(self, row: str, modality: str) -> list[float]:
        """The probe of one encoder on the validation data, epoch by epoch, mean over seeds."""
        curves = [run.curves[modality] for run in self.runs[row].values()]
        return [plain.fmean(values) for values in zip(*curves, strict=True)]

    @property
    def encoders(self) -> list[Encoder]:
        """Each encoder alone against the same in the joint network."""
        return [self._encoder(modality) for modality in self.modalities]

    def _encoder(self, modality: str) -> Encoder:
        alone, joint = self.probe(ALONE + modality, modality), self.probe(JOINT, modality)
        return Encoder(
            modality,
            interval(list(alone.values())),
            interval(list(joint.values())),
            paired(alone, joint),
            self.contribution(JOINT, modality),
        )

    @property
    def neglected(self) -> list[Encoder]:
        """The encoders that joint training leaves short."""
        return [encoder for encoder in self.encoders if encoder.neglected]

    @property
    def helps(self) -> bool:
        """Whether the best yardstick beats joint training by the margin and the noise."""
        return exceeds(self.row(self.best).over_joint, MARGIN)

    @property
    def diagnosis(self) -> Diagnosis | None:
        """That of the joint network of one seed, where it was made."""
        return next((r.diagnosis for r in self.runs[JOINT].values() if r.diagnosis), None)

    @property
    def nothing_to_cure(self) -> bool:
        """No encoder is neglected, and no simple baseline beats joint training."""
        return not self.neglected and not self.helps


def _seeds(runs: Mapping[str, Mapping[int, Run]]) -> list[int]:
    if JOINT not in runs:
        raise ValueError(
            f"A comparison needs joint training. Found {list(runs)}. Run `{JOINT}` as well."
        )
    seeds = {row: sorted(found) for row, found in runs.items()}
    if len({tuple(found) for found in seeds.values()}) > 1:
        raise ValueError(
            f"Every row should have the same seeds. Found {seeds}. Leave unfinished seeds out."
        )
    return seeds[JOINT]
