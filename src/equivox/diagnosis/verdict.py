"""The verdict: what the measurements mean, as rules with thresholds that can be read and doubted.

A modality is *neglected* where its encoder's probe falls short of the same encoder trained alone,
and both interventions (how far predictions move, and how much accuracy falls, when the modality is
exchanged) show that the network listens to it less than a late fusion of the unimodal models does.
A weak modality moves the late fusion little as well, and is not blamed. Where none is neglected, a
modality is *held back* to which the network listens, but whose encoder falls short beyond doubt, at
a cost: the late fusion is better. So a strong modality may fare that learns slowly.

All this supposes that the network was trained as far as the references are. One that neglects a
modality satisfies its loss by another, so on the training data it is no worse than that one alone;
a network that is worse there is under-trained itself, and nobody is blamed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from equivox.diagnosis.headroom import Headroom
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.probes import Probe
from equivox.diagnosis.use import Use

IMBALANCED, BALANCED, UNSURE = "imbalanced", "balanced", "cannot tell"


@dataclass(frozen=True)
class Threshold:
    """A number that a rule compares with, what it means and where it comes from."""

    value: float
    meaning: str
    source: str


THRESHOLDS = {
    "probe gap": Threshold(
        0.02,
        "an encoder is under-trained where its probe falls short by this",
        "the gap of the default data is 0.042 with 0.005 from seed to seed",
    ),
    "sure gap": Threshold(
        0.01,
        "the lower end of the gap's interval that an under-trained encoder needs as well: a probe "
        "is fitted on samples that the network has seen, and reads a little low of itself",
        "the first rounds of `benchmarks/verdict_grid.py`, confirmed on the others",
    ),
    "listening": Threshold(
        0.5,
        "a modality is ignored where exchanging it moves the network below this share of what it "
        "moves a late fusion of the unimodal models",
        "`benchmarks/verdict_grid.py`: a share is about one where all is well, found cases lie far "
        "below, and 0.2 to 0.8 find the same ones",
    ),
    "moves": Threshold(
        0.001,
        "a late fusion moves with a modality where the lower end of what exchanging it does is "
        "above this; a share of less says nothing, and counts as one",
        "`benchmarks/verdict_grid.py`: shares of thousands of percent lie below, and no neglect "
        "that is found there",
    ),
    "underfit": Threshold(
        0.04,
        "the network itself is under-trained where the lower end of what it is worse by on the "
        "training data, than the modality that moves it most is alone, is above this",
        "at most 0.027 in `benchmarks/verdict_cases.py` and 0 in the planted cases of "
        "`benchmarks/verdict_grid.py`; from 0.05 on in nearly all that were cut short there",
    ),
    "above chance": Threshold(
        0.03,
        "a modality says something by itself where it is above chance by this",
        "three standard errors of an accuracy on 1,000 samples of six classes",
    ),
    "harm": Threshold(
        0.01,
        "where no encoder is held back, a headroom below this is no gain, however sure it is",
        "the margin of the demonstration",
    ),
    "ensemble": Threshold(
        0.03,
        "where no modality is ignored, a headroom below this is what models gain that were trained "
        "apart",
        "up to 0.021 on balanced and redundant cases of `benchmarks/verdict_grid.py`",
    ),
    "conflict": Threshold(
        0.1,
        "gradients conflict where the cosine is negative in this share of the batches",
        "two of the twenty batches that are looked at",
    ),
    "samples": Threshold(
        200,
        "fewer test samples decide nothing: an accuracy is then unsure by 0.07",
        "the binomial standard error",
    ),
}


def limit(name: str) -> float:
    """The value of a threshold."""
    return THRESHOLDS[name].value


@dataclass(frozen=True)
class Evidence:
    """What the verdict is made from.

    Attributes: `samples` of the test data; `headroom`; by modality `probes` (empty for dense
    prediction), `use` in the network and `late_use` in a late fusion of the unimodal models;
    `faults` of the data, in words; `metric`, that all this is measured by, in words; by modality
    `ahead`, what its model alone is better by than the network on the training data, in the usual
    metric, empty where it was not measured.
    """

    samples: int
    headroom: Headroom
    probes: Mapping[str, Probe]
    use: Mapping[str, Use]
    late_use: Mapping[str, Use]
    faults: Sequence[str] = ()
    metric: str = "metric"
    ahead: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def leading(self) -> str:
        """The modality that moves the network most."""
        return max(self.use, key=lambda m: self.use[m].divergence.value)


@dataclass(frozen=True)
class Neglect:
    """What is known of one modality.

    Attributes: `gap` of its probe; `listening`, how much the network's prediction moves with it
    relative to a late fusion (by divergence), and `reliance`, the same by the fall of the metric,
    both NaN where the late fusion hardly moves, or where it is not `measured` what exchanging it
    does, as no two samples have different targets;
    `under_trained` and `ignored`, whether the probe, and whether both interventions say so;
    `far_behind`, whether the whole interval of the gap is beyond the threshold.
    """

    modality: str
    gap: Estimate
    listening: float
    reliance: float
    under_trained: bool
    ignored: bool
    says_something: bool
    far_behind: bool = False
    measured: bool = True

    @property
    def heard(self) -> float:
        """The larger of `listening` and `reliance`; what was not measured is taken for one."""
        return max(1.0 if math.isnan(x) else x for x in (self.listening, self.reliance))

    @property
    def neglected(self) -> bool:
        """Whether all of it agrees."""
        return self.under_trained and self.ignored


@dataclass(frozen=True)
class Verdict:
    """What is wrong, in one word and in sentences.

    Attributes: `kind`, "imbalanced", "balanced" or "cannot tell"; `neglected` modalities;
    `held_back`, those that fall short all the same where none is; `synergistic`, whether no
    modality says anything by itself; `gain`, what a late fusion gains over the network; `reasons`,
    one sentence each; `modalities`, what is known of each; `metric`, that it is by, in words;
    `underfits`, whether the network itself is under-trained, so that nobody can be blamed.
    """

    kind: str
    neglected: tuple[str, ...]
    synergistic: bool
    gain: Estimate
    reasons: tuple[str, ...]
    modalities: Mapping[str, Neglect]
    held_back: tuple[str, ...] = ()
    metric: str = "metric"
    underfits: bool = False

    @property
    def suspect(self) -> str:
        """The modality that is worst off: a neglected one if there is, that of the largest gap.

        Of equal or unknown gaps, that which is listened to least.
        """

        def worse(modality: str) -> tuple[float, float]:
            found = self.modalities[modality]
            gap = found.gap.value
            return (-math.inf if math.isnan(gap) else gap), -found.heard

        return max(self.neglected or self.held_back or self.modalities, key=worse)

    def to_json(self) -> dict[str, Any]:
        """The verdict in plain values."""
        return asdict(self)


def verdict(evidence: Evidence) -> Verdict:
    """Apply the rules, the first that holds."""
    known = {m: _neglect(m, evidence) for m in evidence.use}
    neglected = tuple(m for m, found in known.items() if found.neglected)
    synergistic = not any(found.says_something for found in known.values()) and _joint_says(
        evidence
    )
    costs = evidence.headroom.gain.low > 0 and not neglected  # or it is the neglect that costs
    held = tuple(m for m, found in known.items() if costs and found.far_behind)
    stop = _undecidable(evidence, known)
    underfits = not stop and not synergistic and _underfits(evidence)
    if stop or underfits:
        kind, reasons = UNSURE, stop or [_under_trained(evidence)]
    else:
        kind, reasons = _decided(evidence, known, neglected, held, synergistic)
    return Verdict(
        kind,
        neglected if kind == IMBALANCED else (),
        synergistic and kind == BALANCED,
        evidence.headroom.gain,
        tuple(reasons),
        known,
        held if kind == IMBALANCED else (),
        evidence.metric,
        underfits,
    )


def _neglect(modality: str, evidence: Evidence) -> Neglect:
    nothing = Estimate(math.nan, math.nan, math.nan)
    gap = evidence.probes[modality].gap if modality in evidence.probes else nothing
    mine, late = evidence.use[modality], evidence.late_use[modality]
    alone = evidence.headroom.alone[modality]
    found = Neglect(
        modality,
        gap,
        listening=_share(mine.divergence, late.divergence),
        reliance=_share(mine.drop, late.drop),
        under_trained=gap.value >= limit("probe gap") and gap.low > limit("sure gap"),
        ignored=False,
        says_something=alone.low > evidence.headroom.chance + limit("above chance"),
        far_behind=gap.low >= limit("probe gap"),
        measured=not any(math.isnan(x.value) for u in (mine, late) for x in (u.divergence, u.drop)),
    )
    return replace(found, ignored=found.heard < limit("listening"))


def _share(mine: Estimate, late: Estimate) -> float:
    """How far the network moves relative to the late fusion; NaN where that hardly moves."""
    return mine.value / late.value if late.low > limit("moves") else math.nan


def _joint_says(evidence: Evidence) -> bool:
    return evidence.headroom.joint.low > evidence.headroom.chance + limit("above chance")


def _underfits(evidence: Evidence) -> bool:
    """Whether the late fusion is better, and the network did not even fit what one modality can."""
    ahead = evidence.ahead.get(evidence.leading)
    return evidence.headroom.gain.low > 0 and ahead is not None and ahead.low > limit("underfit")


def _undecidable(evidence: Evidence, known: Mapping[str, Neglect]) -> list[str]:
    """Why nothing can be told of the network; empty where something can."""
    if evidence.faults:
        return [f"The data come first: {fault}" for fault in evidence.faults]
    if evidence.samples < limit("samples"):
        return [f"{evidence.samples} test samples are too few: at least {limit('samples'):.0f}."]
    if not _joint_says(evidence) and not any(k.says_something for k in known.values()):
        return ["Nothing is above chance: neither a modality alone nor the network."]
    return []


def _decided(
    evidence: Evidence,
    known: Mapping[str, Neglect],
    neglected: Sequence[str],
    held: Sequence[str],
    synergistic: bool,
) -> tuple[str, list[str]]:
    if synergistic:
        return BALANCED, [
            "No modality says anything by itself, and together they do: the task is synergistic. "
            "Balancing trains modalities to speak alone, and will not help."
        ]
    if neglected:
        reasons = [_neglected(known[m], evidence.metric) for m in neglected]
        return IMBALANCED, [*reasons, *_no_cost(evidence.headroom.gain)]
    if held:
        return IMBALANCED, [_held_back(known[m], evidence.headroom.gain) for m in held]
    return _not_neglected(evidence, known)


def _not_neglected(evidence: Evidence, known: Mapping[str, Neglect]) -> tuple[str, list[str]]:
    gain = evidence.headroom.gain
    better = gain.low > 0 and gain.value >= limit("harm")
    ignored = any(found.ignored for found in known.values())
    wins = better and (ignored or gain.value >= limit("ensemble"))
    half = [found for found in known.values() if found.under_trained or found.ignored]
    which = ", ".join(f"`{found.modality}`" for found in half)
    if wins:
        return UNSURE, [
            f"A late fusion is better by {_pm(gain)}, but the signals do not agree on who "
            f"is neglected ({which or 'no modality in particular'}). The fusion may be what is "
            "wrong: try the ensemble."
        ]
    if half and not evidence.probes:
        return UNSURE, [
            f"The network listens to {which} less than a late fusion does, and no probe can tell "
            "whether its encoder learned enough: dense prediction has no single vector a sample."
        ]
    if half:
        return BALANCED, [*map(_half, half), f"All the same, a late fusion {_no_gain(gain)}."]
    return BALANCED, [
        "No encoder falls short of training alone while being ignored, and a late fusion "
        f"of the unimodal models {_no_gain(gain)}."
    ]


def _no_gain(gain: Estimate) -> str:
    """What is said of a gain that does not count."""
    if gain.low <= 0 or math.isnan(gain.low):
        return "is not better"
    if gain.value < limit("harm"):
        return f"is better by {_pm(gain)} only: less than {limit('harm'):g} does not count"
    return f"is better by {_pm(gain)}, as an ensemble is"


def _half(found: Neglect) -> str:
    """What is said where one sign is there without the other."""
    if found.ignored:
        return (
            f"`{found.modality}` is ignored, and its probe is {_pm(found.gap)} below the same "
            "encoder trained alone, which is too little or too unsure to call it neglected."
        )
    return (
        f"The probe of `{found.modality}` is {_pm(found.gap)} below the same encoder trained "
        f"alone, but {_heard(found)}."
    )


def _heard(found: Neglect) -> str:
    """Why a modality is not ignored."""
    if not found.measured:
        return "what exchanging it does was not measured, as no two samples differ in their target"
    if math.isnan(found.listening) or math.isnan(found.reliance):
        return "a late fusion hardly moves with it either"
    return "the network listens to it"


def _under_trained(evidence: Evidence) -> str:
    leading = evidence.leading
    return (
        "The network itself is under-trained: on the training data it is worse by "
        f"{_pm(evidence.ahead[leading])} than a model of `{leading}` alone, the modality that "
        "moves it most. Train it longer, or with another learning rate: until then nothing shows "
        "who is neglected."
    )


def _neglected(found: Neglect, metric: str) -> str:
    return (
        f"`{found.modality}` is neglected: its probe is {_pm(found.gap)} below the same encoder "
        f"trained alone, and exchanging it moves the prediction {max(found.listening, 0):.0%} as "
        f"far, and the {metric} {max(found.reliance, 0):.0%} as far, as it moves a late fusion."
    )


def _no_cost(gain: Estimate) -> list[str]:
    """What is said of a neglect without a gain."""
    if gain.low > 0 or math.isnan(gain.low):
        return []
    return [f"A late fusion {_no_gain(gain)}, so nothing shows that the neglect costs anything."]


def _held_back(found: Neglect, gain: Estimate) -> str:
    return (
        f"`{found.modality}` is held back: {_heard(found)}, but its probe is {_pm(found.gap)} "
        "below the same encoder trained alone, and a late fusion of the unimodal models is better "
        f"than the network by {_pm(gain)}."
    )


def _pm(found: Estimate) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
