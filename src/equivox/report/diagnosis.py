"""The page of a diagnosis: the verdict in words, the measurements, what to do, how to repeat it."""

from __future__ import annotations

import base64
import html
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.verdict import BALANCED, IMBALANCED, THRESHOLDS, limit
from equivox.report import diagnosis_failures as failures
from equivox.report import diagnosis_sections as sections
from equivox.report import diagnosis_training as training
from equivox.report.diagnosis_failures import hurt_share
from equivox.report.diagnosis_parts import metric, percent, section
from equivox.report.page import Markup, code, joined, marked, save_all, table, tag
from equivox.report.page import page as document
from equivox.report.plots import decimal, said_of, scripts

if TYPE_CHECKING:
    from equivox.diagnosis.diagnose import Diagnosis
    from equivox.diagnosis.prescription import Advice

CONTENTS = {
    "headroom": "Headroom",
    "contributions": "Contributions",
    "use": "Use",
    "dynamics": "Dynamics",
    "conflict": "Conflict",
    "robustness": "Robustness",
    "calibration": "Calibration",
    "hurt": "Who is hurt",
    "data": "Is it the data?",
    "prescription": "What to do",
    "rules": "Rules",
    "receipt": "Receipt",
}
"""The sections in their order."""


def page(found: Diagnosis) -> str:
    """One HTML document that works without a network; its figures need a browser's scripts."""
    script = "The figures need JavaScript. Their numbers are in the tables and captions."
    return document(
        headline(found),
        *_verdict(found),
        tag("noscript", tag("p", script, class_="notice")),
        _contents(),
        sections.headroom(found),
        sections.contributions(found),
        sections.use(found),
        training.dynamics(found),
        training.conflict(found),
        failures.robustness(found),
        failures.calibration(found),
        failures.hurt(found),
        failures.data_checks(found),
        _prescription(found.prescription),
        _rules(),
        _receipt(found),
        scripts(),
    )


def twin(found: Diagnosis) -> str:
    """The diagnosis as JSON; what could not be measured is null."""
    return json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n"


def save(found: Diagnosis, path: Path) -> Path:
    """Write the page, and its twin in JSON beside it: both or, where one cannot be, neither.

    :returns: The page's absolute path.
    :raises ValueError: For a path that ends in `.json`, which is the twin's.
    :raises OSError: Where they cannot be written; what was there before is still there.
    """
    path = Path(path).expanduser().absolute()
    if path.suffix == ".json":
        raise ValueError(
            f"The page is HTML, and its twin in JSON lies beside it. Found `{path.name}` for the "
            f"page. Pass `{path.with_suffix('.html').name}`."
        )
    html_like = path.suffix in (".html", ".htm")
    beside = path.with_suffix(".json") if html_like else path.with_name(f"{path.name}.json")
    save_all({path: page(found), beside: twin(found)})
    return path


def notebook(found: Diagnosis) -> str:
    """The page in a frame, for a notebook: its style and scripts stay inside."""
    frame = 'style="width:100%;height:40rem;border:1px solid #8888" sandbox="allow-scripts"'
    title = html.escape(headline(found))
    return f'<iframe title="{title}" {frame} srcdoc="{html.escape(page(found))}"></iframe>'


def text(found: Diagnosis) -> str:
    """The verdict, a line for each modality, and what to do, for a terminal."""
    heads = ["modality", "alone", "probe", "alone", "gap", "contribution", "listening", "reliance"]
    rows = [heads, *(_line(found, m) for m in found.modalities)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join(
        [
            headline(found),
            *(_indented(said) for said in (*found.verdict.reasons, _gain(found))),
            "",
            *("  ".join(x.ljust(w) for x, w in zip(r, widths, strict=True)).rstrip() for r in rows),
            "",
            *(f"{i}. {_advised(advice)}" for i, advice in enumerate(found.prescription, 1)),
        ]
    ).rstrip()


def _indented(said: str) -> str:
    return textwrap.fill(said, 98, initial_indent="  ", subsequent_indent="  ")


def _line(found: Diagnosis, m: str) -> list[str]:
    probe, known = found.probes.get(m), found.verdict.modalities.get(m)
    contributed = next(iter(found.contributions.values())).values.get(m)
    values = [found.headroom.alone.get(m)]
    values += [probe.joint, probe.alone, probe.gap] if probe else [None, None, None]
    numbers = [decimal(x.value) if x else "-" for x in [*values, contributed]]
    shares = [percent(known.listening), percent(known.reliance)] if known else ["-", "-"]
    return [m, *("-" if x == "not measured" else x for x in [*numbers, *shares])]


def _advised(advice: Advice) -> str:
    return f"`{advice.method}`: {advice.what}" if advice.method else advice.what


# ── the verdict ─────────────────────────────────────────────────────────────────────────────────


def headline(found: Diagnosis) -> str:
    """The verdict in a few words.

    The kind and who it is about: the title of the page and the first line in a terminal.
    """
    kind = found.verdict.kind
    if kind == IMBALANCED:
        *others, last = (f"“{m}”" for m in found.verdict.neglected)
        who = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        return f"Imbalanced: {who} neglected"
    if found.verdict.synergistic:
        return "Synergistic: balancing will not help"
    return "Balanced: nothing to cure" if kind == BALANCED else "Cannot tell who is neglected"


def _verdict(found: Diagnosis) -> list[Markup]:
    good = " good" if found.verdict.kind == BALANCED else ""
    facts = {
        "How much": _how_much(found),
        "How sure": _how_sure(found),
        "To be gained": _gain(found),
        "First thing to do": _advised(found.prescription[0]) if found.prescription else "",
    }
    pairs = [tag(k, x) for name, said in facts.items() if said for k, x in _term(name, said)]
    return [
        *(tag("p", marked(r), class_=f"finding{good}") for r in found.verdict.reasons),
        tag("dl", *pairs, class_="facts"),
    ]


def _term(name: str, said: str) -> list[tuple[str, str]]:
    return [("dt", name), ("dd", marked(said))]


def _how_much(found: Diagnosis) -> str:
    known, hurt = found.verdict.modalities, found.hurt
    if not known:
        return ""
    if found.verdict.kind == IMBALANCED:
        return f"`{hurt.modality}` alone {hurt_share(found)}."
    largest = known[found.verdict.suspect]
    return (
        f"The largest gap of a probe is that of `{largest.modality}`, {said_of(largest.gap)}; the "
        f"network listens to it {percent(largest.listening)} as far as a late fusion does."
    )


def _how_sure(found: Diagnosis) -> str:
    count = found.samples.get("test")
    said = (
        f"Intervals are 95 % over {f'{count:,} ' if count else ''}test samples of one network; "
        "another seed may differ."
    )
    if found.verdict.kind == IMBALANCED:
        said = (
            "Three signals agree: the probe falls short by at least "
            f"{limit('probe gap'):.2f} and beyond its interval, and both interventions are below "
            f"{limit('listening'):.0%} of a late fusion. " + said
        )
    return said


def _gain(found: Diagnosis) -> str:
    gain, name = found.verdict.gain, metric(found)
    if gain.value != gain.value:
        return "Not measured."
    said = f"{_signed(gain)} {name}, what a late fusion gains over the network"
    if found.verdict.kind == IMBALANCED and gain.low > 0:
        return f"{said}: the least that balancing can be expected to gain."
    return f"{said}{'.' if gain.low > 0 else ': no gain for sure.'}"


def _signed(x: Estimate) -> str:
    return f"{x.value:+.3f} ({x.low:+.3f} to {x.high:+.3f})"


def _contents() -> Markup:
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title in CONTENTS.items()]
    return tag("nav", tag("ul", *links, class_="contents"), aria_label="Sections")


# ── what to do, and where it comes from ─────────────────────────────────────────────────────────


def _prescription(advices: Sequence[Advice]) -> Markup:
    order = "In this order: simple yardsticks first, then methods, by cost and by evidence."
    none = "No rule gives an advice. Cure what is said above, and diagnose again."
    return section(
        "prescription",
        CONTENTS["prescription"],
        tag("p", order if advices else none),
        *(_advice(i, advice) for i, advice in enumerate(advices, 1)),
    )


def _advice(number: int, advice: Advice) -> Markup:
    facts = {
        "Signal": advice.signal,
        "Cost of a step": f"{advice.cost} times that of plain training" if advice.cost else "",
        "Not if": advice.not_if,
    }
    pairs = [tag(k, x) for name, said in facts.items() if said for k, x in _term(name, said)]
    title = [tag("code", advice.method), ": "] if advice.method else []
    return joined(
        tag("h3", f"{number}. ", *title, marked(advice.what)),
        tag("dl", *pairs, class_="facts"),
        code(advice.lines) if advice.lines else "",
    )


def _rules() -> Markup:
    rows = [[name, f"{t.value:g}", t.meaning, t.source] for name, t in THRESHOLDS.items()]
    listed = table(
        "The thresholds that the verdict compares with",
        ["threshold", "value", "meaning", "where it comes from"],
        rows,
    )
    said = (
        "A modality is called neglected where its encoder's probe falls short of the same encoder "
        "trained alone, and both interventions show that the network listens to it less than a "
        "late fusion does. A weak modality moves a late fusion little as well, and is not blamed."
    )
    return section("rules", "The rules", tag("p", said), tag("div", listed, class_="words"))


def _receipt(found: Diagnosis) -> Markup:
    receipt: dict[str, Any] = found.to_json()["receipt"]
    versions = receipt.get("versions")
    facts: dict[str, str] = {
        "task": found.task,
        "modalities": ", ".join(found.modalities),
        **{f"{split} samples": str(count) for split, count in found.samples.items()},
        "epochs alone": ", ".join(f"{m} {n}" for m, (n, _) in found.epochs_alone.items()),
        **({k: str(x) for k, x in versions.items()} if isinstance(versions, Mapping) else {}),
    }
    pairs = [tag(kind, x) for name, fact in facts.items() for kind, x in _plain_term(name, fact)]
    others = {k: x for k, x in receipt.items() if k not in ("versions", "command")}
    parts = [code(str(receipt["command"]))] if receipt.get("command") else []
    parts.append(tag("dl", *pairs))
    if others:
        written = json.dumps(others, indent=1, ensure_ascii=False)
        parts.append(tag("details", tag("summary", "Configuration"), code(written)))
    return section("receipt", CONTENTS["receipt"], *parts, _download(found))


def _plain_term(name: str, fact: str) -> list[tuple[str, str]]:
    return [("dt", name), ("dd", fact)]


def _download(found: Diagnosis) -> Markup:
    """The twin inside the page, so that it is not lost where the page goes alone."""
    packed = base64.b64encode(twin(found).encode()).decode()
    link = tag(
        "a",
        "Every number in JSON",
        href=f"data:application/json;base64,{packed}",
        download="diagnosis.json",
    )
    return tag("p", link, class_="screen")
