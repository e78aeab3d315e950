"""The page of a diagnosis: the verdict in words, the measurements, what to do, how to repeat it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivox.diagnosis.verdict import THRESHOLDS
from equivox.report.diagnosis import failures, modalities, training
from equivox.report.diagnosis.hurt import hurt
from equivox.report.diagnosis.verdict import headline, verdict
from equivox.report.diagnosis.words import cell
from equivox.report.page import Markup, code, joined, marked, save_all, table, tag
from equivox.report.page import page as document
from equivox.report.parts import Section, section, terms
from equivox.report.plots import scripts

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


def page(found: Diagnosis, *, about: str = "", added: Sequence[Section] = ()) -> str:
    """One HTML document that works without a network; its figures need a browser's scripts.

    :param about: What is said below the title: what was diagnosed.
    :param added: Further sections, which follow what is to be done.
    """
    script = "The figures need JavaScript. Their numbers are in the tables and captions."
    return document(
        headline(found),
        tag("p", about) if about else "",
        verdict(found),
        tag("noscript", tag("p", script, class_="notice")),
        _contents(added),
        modalities.headroom(found),
        modalities.contributions(found),
        modalities.use(found),
        training.dynamics(found),
        training.conflict(found),
        failures.robustness(found),
        failures.calibration(found),
        hurt(found),
        failures.data_checks(found),
        _prescription(found),
        *(section(*each) for each in added),
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
    style = "width:100%;height:40rem;border:1px solid #8888"
    allowed = "allow-scripts allow-downloads"
    return tag("iframe", title=headline(found), style=style, sandbox=allowed, srcdoc=page(found))


def _contents(added: Sequence[Section]) -> Markup:
    titles = list(CONTENTS.items())
    place = list(CONTENTS).index("rules")
    titles[place:place] = [(each.name, each.title) for each in added]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title in titles]
    return tag("nav", tag("ul", *links, class_="contents"), aria_label="Sections")


# ── what to do, and where it comes from ─────────────────────────────────────────────────────────


def _prescription(found: Diagnosis) -> Markup:
    advices = list(enumerate(found.prescription, 1))
    order = "In this order: simple yardsticks first, then methods, by cost and by evidence."
    none = "No rule gives an advice. Cure what is said above, and diagnose again."
    return section(
        "prescription",
        CONTENTS["prescription"],
        tag("p", order if advices else none),
        _expected(found) if any(advice.method for _, advice in advices) else "",
        *(_advice(i, advice) for i, advice in advices),
    )


def _expected(found: Diagnosis) -> Markup:
    """What each advice is expected to gain and costs, at a glance."""
    rows = [
        [f"{i}. {advice.method or advice.what}", cell(advice.gain) if advice.gain else "-",
         advice.cost or "-"]
        for i, advice in enumerate(found.prescription, 1)
    ]  # fmt: skip
    caption = (
        f"The {found.verdict.metric} that each may gain over the network, which is a share of what "
        "a late fusion gains, and the cost of a step as a multiple of plain training, where the "
        "encoders take the time: with small ones it is more"
    )
    return tag("div", table(caption, ["", "expected gain", "cost"], rows), class_="compact narrow")


def _advice(number: int, advice: Advice) -> Markup:
    facts = {"Signal": advice.signal, "Not if": advice.not_if}
    title = [tag("code", advice.method), ": "] if advice.method else []
    return joined(
        tag("h3", f"{number}. ", *title, marked(advice.what)),
        terms({name: marked(said) for name, said in facts.items()}),
        code(advice.lines) if advice.lines else "",
    )


def _rules() -> Markup:
    rows = [[name, f"{t.value:g}", t.meaning, marked(t.source)] for name, t in THRESHOLDS.items()]
    listed = table(
        "The thresholds that the verdict compares with",
        ["threshold", "value", "meaning", "where it comes from"],
        rows,
    )
    said = (
        "A modality is called neglected where its encoder's probe falls short of the same encoder "
        "trained alone, and both interventions show that the network listens to it less than a "
        "late fusion does. A weak modality moves a late fusion little as well, and is not blamed. "
        "Where none is neglected, one is held back to which the network listens, but whose encoder "
        "falls short beyond doubt while a late fusion is better. A network that is worse on the "
        "training data than one modality alone is under-trained, and nobody is blamed."
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
    others = {k: x for k, x in receipt.items() if k not in ("versions", "command")}
    trained = receipt.get("training", {}).get("command")
    commands = [str(x) for x in (trained, receipt.get("command")) if x]
    parts = [code("\n".join(commands))] if commands else []
    parts.append(terms(facts))
    if others:
        written = json.dumps(others, indent=1, ensure_ascii=False)
        parts.append(tag("details", tag("summary", "Configuration"), code(written)))
    return section("receipt", CONTENTS["receipt"], *parts, _download(found))


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
