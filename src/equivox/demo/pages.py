"""The pages of the demonstration: one that gathers its cases, and a diagnosis of each."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from equivox.bench.folder import versions
from equivox.demo.cases import DIAGNOSED
from equivox.demo.comparison import Comparison
from equivox.demo.findings import outcome, verdict
from equivox.demo.sections import methods_section, probes, reached
from equivox.demo.seeds import Finished
from equivox.report import diagnosis
from equivox.report.diagnosis.verdict import headline
from equivox.report.page import Markup, code, joined, marked, page, tag
from equivox.report.parts import charts_of, terms
from equivox.report.plots import scripts

INDEX = "index.html"

LEAD = (
    "What joint training does to the encoders of a multimodal network, what it costs, and what "
    "cures it: two cases, and a control in which there is nothing to cure."
)

MEANING = (
    "A network that learns from several modalities at once may stop training one of its encoders "
    "when another already explains the training data. The accuracy need not tell; a linear probe "
    "of each encoder does.",
    "The opponent of a balancing method is the best simple baseline, not joint training. Adding a "
    "loss for each modality is such a baseline, costs little, and is hard to beat in the "
    "literature. A method that only beats joint training has not shown much.",
    "These are small networks on small data, with default settings that were tuned for no method. "
    "The pages show that the effect exists and how it is measured, not which method is best for "
    "your data.",
    "On the digits every network that sees both modalities learns the shortcut, and balancing does "
    "not undo that: compare with gray alone.",
    "Equal contributions are not the aim. A modality may contribute little because it holds "
    "little; it is neglected only if its encoder would have learned more alone.",
)


def demonstration(
    comparisons: Sequence[Comparison],
    abouts: Sequence[str],
    methods: Sequence[str],
    finished: Finished,
    loop: str,
) -> dict[str, str]:
    """The texts of the pages, and of each diagnosis's twin in JSON, by the names of their files.

    :param abouts: What each data set is.
    :param methods: The rows that are balancing methods.
    :param loop: The lines to paste into one's own training loop.
    """
    files: dict[str, str] = {}
    for comparison, about in zip(comparisons, abouts, strict=True):
        files |= _diagnosed(comparison, about, methods, finished)
    cases = (_case(c, about, methods) for c, about in zip(comparisons, abouts, strict=True))
    shortened = f"Fewer seeds than asked for: {finished.shortened}"
    files[INDEX] = page(
        "Which modality does the network neglect?",
        tag("p", LEAD, class_="lead"),
        tag("p", shortened, class_="notice") if finished.shortened else "",
        *cases,
        tag("h2", "What this means, and what it does not"),
        tag("ul", *(tag("li", text) for text in MEANING)),
        tag("h2", "In your own loop"),
        code(loop),
        _origin(finished),
        scripts(),
    )
    return files


def _diagnosed(
    comparison: Comparison, about: str, methods: Sequence[str], finished: Finished
) -> Mapping[str, str]:
    """The page of a case and its twin."""
    if comparison.diagnosis is None:
        return {}
    receipt = {**comparison.diagnosis.receipt, "command": _command(finished)}
    found = replace(comparison.diagnosis, receipt=receipt)
    back = tag("a", "All cases of the demonstration", href=INDEX)
    lead = joined(tag("strong", comparison.data), ". ", marked(about), " ", back, ".")
    added = [methods_section(comparison, methods)]
    whole = diagnosis.page(found, about=lead, added=added)
    return {f"{comparison.data}.html": whole, f"{comparison.data}.json": diagnosis.twin(found)}


def _case(comparison: Comparison, about: str, methods: Sequence[str]) -> Markup:
    kind = "finding good" if comparison.nothing_to_cure else "finding"
    found = outcome(comparison, methods)
    caption = (
        "The dotted line is joint training. The probe reads the encoder that is worst off, on the "
        "validation data, after every epoch."
    )
    return joined(
        tag("h2", comparison.data),
        tag("p", marked(about)),
        tag("p", marked(verdict(comparison)), class_=kind),
        charts_of(caption, [reached(comparison), probes(comparison)[_worst(comparison)]]),
        tag("p", marked(found)) if found else "",
        _link(comparison),
    )


def _worst(comparison: Comparison) -> int:
    gaps = [encoder.gap.mean for encoder in comparison.encoders]
    return gaps.index(max(gaps))


def _link(comparison: Comparison) -> Markup:
    found = comparison.diagnosis
    if found is None:
        return Markup("")
    said = f" The diagnosis of the network of seed {DIAGNOSED}, and the methods compared."
    link = tag("a", headline(found), href=f"{comparison.data}.html")
    return tag("p", tag("strong", link, "."), said)


def _origin(finished: Finished) -> Markup:
    runs = (
        f"The runs took {finished.seconds:.0f} s in two processes of one thread each. Every number "
        "of every run is in `runs.json` beside this page."
    )
    return joined(
        tag("h2", "To make this page again"),
        code(_command(finished)),
        tag("p", marked(runs)),
        terms(versions() | {"platform": sys.platform}),
    )


def _command(finished: Finished) -> str:
    """With time enough for the same seeds on a machine a third slower."""
    budget = max(100, round(finished.seconds * 4 / 3))
    return f"equivox demo --seeds {finished.seeds} --budget {budget}"
