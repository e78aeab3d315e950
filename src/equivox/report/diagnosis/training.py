"""What a diagnosis measured of the training: dynamics and conflict of gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from equivox.report.diagnosis.words import cell
from equivox.report.page import Markup, marked, table, tag
from equivox.report.parts import beside, charts_of, folded, section
from equivox.report.plots import Plot, Series, dots, lines, modality_colour

if TYPE_CHECKING:
    from equivox.diagnosis.conflict import Agreement
    from equivox.diagnosis.diagnose import Diagnosis

CURVES = {
    "metric": ("Each modality's own answers", False),
    "loss": ("Loss of its own answers", True),
    "probe": ("Linear probe of its encoder", False),
    "utilisation": ("Share of the metric that goes without it", False),
    "discrepancy": ("Its confidence over the others'", True),
    "gradient_norm": ("Gradient norm of its encoder", True),
    "update_ratio": ("Step over weights of its encoder", True),
    "learning_speed": ("Learning speed", True),
    "conditional_speed": ("Conditional learning speed", False),
    "overfitting_ratio": ("Overfitting to generalisation", True),
    "fisher_trace": ("Fisher trace of its encoder", True),
    "purity": ("Purity of its clusters", False),
}
"""Titles of the curves, in order, and whether ratios are what counts in them."""

_FIRST = ("probe", "metric", "utilisation", "gradient_norm")


def dynamics(found: Diagnosis) -> Markup:
    """The curves of a recorder, where there was one."""
    plain = found.to_json()["dynamics"]
    if not plain or not plain["curves"]:
        why = (
            "Nothing was recorded in training. Train with `equivox train --record`, or attach a "
            "`Recorder` and pass it as `dynamics`, to see when a modality fell behind."
        )
        return section("dynamics", "Dynamics", tag("p", marked(why), class_="soft"))
    blamed = _blamed(found)
    onsets = plain["onset"]
    plain["onset"] = {m: x for m, x in onsets.items() if m in blamed}
    charts = dict(_curves(plain))
    first = [name for name in _FIRST if name in charts]
    caption = (
        "Recorded during training, by epoch. Where there are two lines of a colour, the thick one "
        "is of the validation data and the thin dotted one of the training data; beside a probe, "
        "which is fitted on at most 1,000 samples, of the modality's own model, trained on all."
    )
    said = [*began(found)]
    if said:
        caption += " An upright line is where the damage began, in the colour of the modality."
    elif onsets:
        said = [_NO_ONSET if blamed else _NOBODY]
    listed = tag("ul", *(tag("li", marked(line)) for line in said))
    more = [chart for name, chart in charts.items() if name not in first]
    parts = [listed, charts_of(caption, [charts[name] for name in first])] if first else [listed]
    if more:
        inside = charts_of("Scales with powers of ten show ratios.", more)
        parts.append(tag("details", tag("summary", f"{len(more)} more curves"), inside))
    parts.append(folded("First and last values of every curve", _curve_table(plain)))
    return section("dynamics", "Dynamics", *parts)


ONSETS = {
    "behind": "its probe reads less than the modality's own model did after as many epochs",
    "gradient_norm": "the gradient of its encoder stays below a tenth of its largest",
    "update_ratio": "the steps of its encoder stay below a tenth of their largest",
}
"""What begins at the epochs of an `Onset`, in words."""

_NO_ONSET = "When it was left behind cannot be seen in what was recorded."
_NOBODY = "No modality is neglected or held back, so none has an onset."

_MARKED = {"probe": "behind", "gradient_norm": "gradient_norm", "update_ratio": "update_ratio"}


def began(found: Diagnosis) -> Iterator[str]:
    """When the damage began, a sentence for each modality that is neglected or held back."""
    onsets = found.dynamics.onset if found.dynamics else {}
    for m in (m for m in _blamed(found) if m in onsets):
        begun = {why: getattr(onsets[m], kind) for kind, why in ONSETS.items()}
        said = [f"from epoch {x + 1} on {why}" for why, x in begun.items() if x is not None]
        if said:
            yield f"`{m}`: {'; '.join(said)}."


def _blamed(found: Diagnosis) -> tuple[str, ...]:
    return (*found.verdict.neglected, *found.verdict.held_back)


def _marks(plain: Mapping[str, Any], curve: str) -> list[tuple[float, str]]:
    """Where damage that a curve shows began, and the colours of the modalities."""
    kind = _MARKED.get(curve)
    places = {m: i for i, m in enumerate(plain["modalities"])}
    onsets = plain["onset"].items() if kind else ()
    return [(x[kind] + 1, modality_colour(places[m])) for m, x in onsets if x[kind] is not None]


def _curves(plain: Mapping[str, Any]) -> Iterator[tuple[str, Plot]]:
    """A chart for each quantity: held-out data thick, training data thin."""
    curves, epochs = plain["curves"], _counted(plain)
    bases = {name.removesuffix("_validation").removesuffix("_train") for name in curves}
    for base in sorted(bases - {"alone"}, key=lambda b: ([*CURVES, b].index(b), b)):
        title, logarithmic = CURVES.get(base, (base.replace("_", " "), False))
        beside = "alone" if base == "probe" else f"{base}_train"
        names = [n for n in (f"{base}_validation", base, beside) if n in curves]
        thick, thin = (_series(curves[n], plain) for n in (names[0], names[-1]))
        yield (
            base,
            lines(
                title,
                "" if base == names[0] else names[0].removeprefix(f"{base}_"),
                epochs,
                thick,
                "epoch",
                thin=thin if len(names) > 1 else (),
                logarithmic=logarithmic and _positive(thick),
                marks=_marks(plain, base),
            ),
        )


def _series(by: Mapping[str, Sequence[float | None]], plain: Mapping[str, Any]) -> list[Series]:
    places = {m: i for i, m in enumerate(plain["modalities"])}
    return [Series(m, x, modality_colour(places.get(m, 0))) for m, x in by.items()]


def _positive(series: Sequence[Series]) -> bool:
    values = [x for s in series for x in s.values if isinstance(x, float)]
    return bool(values) and min(values) > 0


def _counted(plain: Mapping[str, Any]) -> list[int]:
    """The numbers of the epochs from 1, as `equivox train` prints them."""
    return [epoch + 1 for epoch in plain["epochs"]]


def _curve_table(plain: Mapping[str, Any]) -> Markup:
    rows = []
    for name, by in plain["curves"].items():
        for m, values in by.items():
            known = [x for x in values if x is not None]
            ends = [f"{x:.3g}" for x in (known[0], known[-1])] if known else ["-", "-"]
            rows.append([f"{name.replace('_', ' ')}", m, *ends])
    epochs = _counted(plain)
    caption = f"Epochs {epochs[0]} to {epochs[-1]}" if epochs else "No epochs"
    return table(caption, ["curve", "modality", "first", "last"], rows)


def conflict(found: Diagnosis) -> Markup:
    """The cosines of gradients, by encoder and layer group."""
    if found.conflict is None:
        why = "Gradients were not compared."
        return section("conflict", "Conflict", tag("p", why, class_="soft"))
    of = found.conflict
    rows: dict[str, Agreement] = {}
    for m, whole in of.encoders.items():
        rows[m] = whole
        groups = of.groups.get(m, {})
        if len(groups) > 1:  # one is the whole encoder
            rows |= {f"{m} · {part}": x for part, x in groups.items()}
    chart = dots(
        "Do the joint and the own gradient agree?",
        "cosine",
        list(rows),
        Series("", [x.cosine for x in rows.values()], "--s2"),
    )
    numbers = table(
        f"Means and intervals over the batches, of which there were {of.batches}",
        ["encoder · layer", "cosine", "in conflict", "joint / own norm"],
        [[n, cell(x.cosine), cell(x.share), cell(x.ratio)] for n, x in rows.items()],
    )
    own = "of its own head" if of.own_heads else "of its share of the fused logits"
    caption = (
        f"A modality's own loss is that {own}. Below zero the joint loss moves an encoder against "
        "what its own modality asks for; a small ratio of norms means that it hardly moves it."
    )
    return section("conflict", "Conflict", beside(caption, chart, numbers))
