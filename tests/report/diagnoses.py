"""Diagnoses with made-up numbers, for pages: any modalities, any task, also with gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch

from equivox.diagnosis.calibration import Calibration
from equivox.diagnosis.conflict import Agreement, Conflict
from equivox.diagnosis.contribution import Contribution
from equivox.diagnosis.diagnose import Diagnosis
from equivox.diagnosis.dynamics import Dynamics, Onset
from equivox.diagnosis.findings import Finding
from equivox.diagnosis.headroom import Headroom
from equivox.diagnosis.hurt import Case, Hurt, HurtClass
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.prescription import Advice
from equivox.diagnosis.preview import Preview, preview
from equivox.diagnosis.probes import Probe
from equivox.diagnosis.robustness import Curve, Robustness
from equivox.diagnosis.use import Route, Use
from equivox.diagnosis.verdict import BALANCED, IMBALANCED, Neglect, Verdict

HOSTILE = "<script>alert('x')</script><b> & \"more\" `code` %{x} </script>"
UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def about(value: float) -> Estimate:
    return Estimate(value, value - 0.01, value + 0.01)


def example(names: Sequence[str] = ("easy", "hard"), note: str = "a note") -> Diagnosis:
    """The last modality is neglected. `note` is the text that comes from elsewhere."""
    last = names[-1]
    known = {m: Neglect(m, about(0.003), 1.2, 1.1, False, False, True) for m in names}
    known[last] = Neglect(last, about(0.041), 0.02, 0.03, True, True, True)
    alone = {m: about(0.9 - 0.02 * i) for i, m in enumerate(names)}
    verdict = Verdict(
        IMBALANCED,
        (last,),
        False,
        about(0.013),
        (f"`{last}` is neglected: {note}.",),
        known,
        metric="accuracy",
    )
    return Diagnosis(
        task="Classification(classes=3, label_smoothing=0.0)",
        modalities=tuple(names),
        samples={"test": 2400},
        verdict=verdict,
        headroom=Headroom(
            0.345, alone, names[0], about(0.931), about(0.944), about(0.013), about(-0.031)
        ),
        contributions={how: _contribution(how, names) for how in ("zero", "mean", "shuffle")},
        use={m: Use(about(0.4), about(0.6), about(0.3)) for m in names},
        late_use={m: Use(about(0.2), about(0.8), about(0.1)) for m in names},
        routing=[Route(s, 1 / 2 ** len(names), 75, about(0.778)) for s in subsets(names)],
        probes={m: Probe(about(0.831), about(0.872), about(0.041)) for m in names},
        conflict=_conflict(names),
        robustness={m: _robustness(i) for i, m in enumerate(names)},
        calibration=Calibration(
            "zero",
            {" + ".join(s): 0.0625 for s in reversed(subsets(names))},
            {m: about(0.189) for m in names},
        ),
        hurt=Hurt(last, about(0.023), _classes(names), _cases()),
        data=(
            Finding("scales", None, "fine", "The inputs are of comparable scale."),
            Finding("nonfinite", last, "fault", f"NaN in `{last}`: {note}.", "Clean it.", 3),
        ),
        epochs_alone={m: (12, m != last) for m in names},
        prescription=(
            Advice(
                "unimodal_losses",
                "Add a loss.",
                "a gap",
                "ev.UnimodalLosses()",
                "1.02",
                note,
                about(0.025),
            ),
            Advice("", "Look at the data.", "", "", "", ""),
        ),
        dynamics=_dynamics(names),
        receipt={
            "command": f"equivox diagnose run --note '{note}'",
            "experiment": {"note": note},
            "versions": {"equivox": "0.1.0", "torch": "2.13.0"},
        },
        metric="accuracy",
        classes=(f"zero, {note}", "one", "two"),
        previews={548 + i: _previews(names, note) for i in range(2)},
    )


def balanced(names: Sequence[str] = ("easy", "hard")) -> Diagnosis:
    found = example(names)
    reasons = ("No encoder falls short of training alone while being ignored.",)
    calm = replace(found.verdict, kind=BALANCED, neglected=(), gain=about(0.0), reasons=reasons)
    return replace(found, verdict=calm, data=found.data[:1])


def regression(names: Sequence[str] = ("easy", "hard")) -> Diagnosis:
    """Of a task without classes; nothing was recorded, and no gradients were compared."""
    found = example(names)
    case = Case(5, 1.5, [0.25, 0.5], 1.25, None, None, 1.5625)
    return replace(
        found,
        task="Regression(outputs=1)",
        metric="R²",
        routing=(),
        calibration=Calibration("zero", {}, {}),
        conflict=None,
        dynamics=None,
        hurt=Hurt(names[-1], about(0.4), (), (case,)),
        receipt={},
        classes=(),
        previews={},
    )


def with_gaps() -> Diagnosis:
    """Nothing that could be missing is there: not numbers, or empty."""
    found = example()
    names = found.modalities
    head = found.headroom
    unknown = dict.fromkeys(names, UNKNOWN)
    agreement = Agreement(UNKNOWN, UNKNOWN, UNKNOWN)
    return replace(
        found,
        verdict=replace(found.verdict, gain=UNKNOWN),
        headroom=replace(head, alone=unknown, gain=UNKNOWN, chance=math.nan),
        contributions={"zero": Contribution("zero", unknown, {}, math.nan, math.nan, {})},
        probes={},
        conflict=Conflict(dict.fromkeys(names, agreement), {}, True, 1),
        robustness={
            m: Robustness(UNKNOWN, {"zero": UNKNOWN}, Curve("exchange", (), ())) for m in names
        },
        hurt=Hurt("hard", UNKNOWN, (), ()),
        previews={},
        data=(),
        prescription=(),
        dynamics=Dynamics(names, (0, 1), {"probe": {"easy": (None, 0.5), "hard": (None, None)}}),
    )


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    sizes = range(len(names), -1, -1)
    return [subset for size in sizes for subset in combinations(names, size)]


def _contribution(how: str, names: Sequence[str]) -> Contribution:
    pairs = {" + ".join(pair): -0.0156 for pair in combinations(names, 2)}
    values = {m: about(0.6 / (i + 1)) for i, m in enumerate(names)}
    whole = {" + ".join(s): 0.5 for s in subsets(names)}
    return Contribution(how, values, pairs, 0.402, 0.5, whole)


def _conflict(names: Sequence[str]) -> Conflict:
    agreement = Agreement(about(0.277), about(0.1), about(0.066))
    groups = {m: {"1": agreement, "3": agreement} for m in names}
    return Conflict(dict.fromkeys(names, agreement), groups, False, 20)


def _robustness(number: int) -> Robustness:
    levels = (0.25, 0.5, 1.0, 2.0)
    fallen = tuple(about(0.93 - 0.1 * level / (number + 1)) for level in levels)
    missing = {how: about(0.537) for how in ("zero", "mean", "shuffle")}
    return Robustness(about(0.931), missing, Curve("noise", levels, fallen))


def _classes(names: Sequence[str]) -> tuple[HurtClass, ...]:
    alone = {m: about(0.8) for m in names}
    return tuple(HurtClass(i, 800, about(0.9), alone, about(0.04)) for i in range(3))


def _cases() -> tuple[Case, ...]:
    return tuple(Case(548 + i, 2, 1, 2, 0.75, 0.99, None) for i in range(3))


def _previews(names: Sequence[str], note: str) -> dict[str, Preview]:
    """One of each kind, as far as there are modalities."""
    kinds = [
        preview(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))),
        Preview("text", note),
        Preview("signal", [[0.0, 1.0, 0.5], [0.25, 0.25, 0.25]]),
        Preview("vector", [-1.0, 0.0, 2.5]),
    ]
    return dict(zip(names, kinds, strict=False))


def _dynamics(names: Sequence[str]) -> Dynamics:
    epochs = (0, 1, 2, 3)
    curves: dict[str, Any] = {
        name: {m: tuple(0.5 + 0.1 * e / (i + 1) for e in epochs) for i, m in enumerate(names)}
        for name in ("metric_train", "metric_validation", "loss_train", "fisher_trace")
    }
    curves["probe"] = dict.fromkeys(names, (0.5, None, 0.625, None))
    curves["alone"] = dict.fromkeys(names, (0.5, 0.7, 0.8, 0.8))
    curves["a_new_one"] = {names[0]: (-1.0, 0.0, 1.0, math.nan)}
    onset = {m: Onset(None, None, None) for m in names} | {names[-1]: Onset(2, 3, None)}
    return Dynamics(tuple(names), epochs, curves, onset)
