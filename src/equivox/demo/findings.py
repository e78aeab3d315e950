"""What a comparison says, in words and in the cells of its table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from equivox.bench.labels import JOINT
from equivox.bench.notation import p_text, plus_minus, signed
from equivox.demo.comparison import MARGIN, PROBE_MARGIN, Comparison

_NAMES = {
    JOINT: "joint training",
    "ensemble": "ensemble",
    "unimodal_losses": "unimodal losses",
    "ogm_ge": "OGM-GE",
    "mmpareto": "MMPareto",
    "mmcosine": "MMCosine",
}

RULE = (
    "There is something to cure where a probe reads at least "
    f"{PROBE_MARGIN:g} less from an encoder of the joint network than from the same encoder "
    f"trained alone, or where the best yardstick beats joint training by at least {MARGIN:g}; and "
    "where the 95 % interval of the difference leaves zero out."
)


def label(row: str) -> str:
    """The name of a row as people read it."""
    return _NAMES.get(row, row)


def diagnosis(comparison: Comparison) -> list[str]:
    """What joint training did to the encoders, one sentence each."""
    return [
        f"A probe of `{e.modality}` reads {e.alone.mean:.3f} after training alone and "
        f"{e.joint.mean:.3f} after joint training "
        f"({signed(-e.gap.mean)}{plus_minus(e.gap.half)}{_with_p(e.gap.p)}); it "
        f"contributes {e.contribution.mean:.3f} to the joint accuracy: "
        + ("neglected." if e.neglected else "not neglected.")
        for e in comparison.encoders
    ]


def verdict(comparison: Comparison) -> str:
    """What follows for the data set, in a sentence or two."""
    names = " and ".join(f"`{e.modality}`" for e in comparison.neglected)
    best = comparison.row(comparison.best)
    gain = (
        f"{label(best.name)} ({signed(best.over_joint.mean)}{plus_minus(best.over_joint.half)} "
        "over joint training)"
    )
    if comparison.nothing_to_cure:
        beaten = (
            "no yardstick beats joint training."
            if best.name == JOINT
            else f"the best yardstick, {label(best.name)}, does not beat joint training "
            f"({signed(best.over_joint.mean)}{plus_minus(best.over_joint.half)})."
        )
        return f"Nothing to cure here: no encoder falls short of its training alone, and {beaten}"
    if not names:
        return f"No encoder is neglected, yet a simple baseline is better: {gain}."
    return f"Joint training neglects {names}. The best yardstick is {gain}."


def outcome(comparison: Comparison, methods: Sequence[str]) -> str:
    """How the methods do against the best yardstick; empty where none ran."""
    rows = [comparison.row(name) for name in methods if name in comparison.runs]
    if not rows:
        return ""
    if len(comparison.seeds) < 2:
        return "One seed does not tell how the methods compare with the best yardstick."
    groups = {
        "clearly better than it": [r for r in rows if r.over_yardstick.low > 0],
        "clearly worse": [r for r in rows if r.over_yardstick.high < 0],
        "not distinguishable from it": [r for r in rows if not r.over_yardstick.clear],
    }
    told = [f"{', '.join(label(r.name) for r in g)} {what}" for what, g in groups.items() if g]
    return f"Against the best yardstick, {label(comparison.best)}: " + "; ".join(told) + "."


def _with_p(p: float) -> str:
    text = p_text(p)
    return text and (f", p {text}" if text.startswith("<") else f", p = {text}")


def header() -> tuple[str, ...]:
    """The heads of the table's columns."""
    return ("", "accuracy", "over joint", "p", "over yardstick", "p", "detectable", "cost")


def cells(comparison: Comparison, name: str) -> tuple[str, ...]:
    """A line of the table."""
    row = comparison.row(name)
    joint, best = row.over_joint, row.over_yardstick
    itself = [name == JOINT, name == comparison.best]
    gains = [
        ("", "") if same else (signed(d.mean) + plus_minus(d.half), p_text(d.p))
        for d, same in zip((joint, best), itself, strict=True)
    ]
    detectable = "" if itself[1] or math.isnan(best.detectable) else f"{best.detectable:.3f}"
    cost = "" if row.cost is None else f"{row.cost:.1f} x"
    star = " *" if name == comparison.best else ""
    accuracy = f"{row.metric.mean:.3f}{plus_minus(row.metric.half)}"
    return (label(name) + star, accuracy, *gains[0], *gains[1], detectable, cost)


def explanation(comparison: Comparison) -> list[str]:
    """How to read a table."""
    metric = comparison.row(JOINT).metric
    spread = f", mean ± 95 % interval over {metric.seeds} seeds ({metric.kind})"
    return [
        f"Test accuracy{spread if metric.seeds > 1 else ' of one seed, without an interval'}; the "
        "epoch is chosen on the validation data, and the test data are looked at once.",
        "Gains are paired by seed; p is that of a paired t-test, not corrected for the number of "
        "comparisons. * marks the best yardstick: of each modality alone, joint training, the "
        "ensemble and unimodal losses, the one with the best validation accuracy.",
        "Probe: the test accuracy of a logistic regression on the frozen features of an encoder "
        "at the end of training. Contribution: the Shapley value for the accuracy.",
        "Detectable: the gain over the best yardstick that 4 of 5 such experiments would find.",
        "Cost: wall-clock seconds of an epoch of training, without measuring, over those of joint "
        "training with the same seed; medians over epochs and seeds. The rows `alone` are the "
        "parts of the ensemble and not timed by themselves.",
        RULE,
    ]
