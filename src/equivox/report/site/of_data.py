"""The page of a data set: its boards, the protocol, the runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from equivox.bench.leaderboard import Key, Leaderboard, Line, title
from equivox.bench.notation import counted, p_text
from equivox.bench.result import SETTINGS
from equivox.bench.tables import lacking
from equivox.report.page import Markup, code, marked, table, tag
from equivox.report.parts import section, terms
from equivox.report.site import reading
from equivox.report.site.cells import HEADS, arguments, cells, ends, kind, name, number
from equivox.report.site.content import Content
from equivox.report.site.document import Cell, Row, board, document
from equivox.report.site.links import INDEX, ROOT, anchor, method_page
from equivox.report.site.pareto import pareto
from equivox.report.site.runs import again, runs
from equivox.report.site.strip import Strips

_MORE = ("last epoch", "interquartile mean", "probability of improvement", "BCa", "p (Wilcoxon)")


def page(content: Content, data: str, strips: Mapping[Key, Strips]) -> str:
    """The page as HTML."""
    parts = [
        part
        for tuned, found in content.of_data(data).items()
        for part in _sections(content, tuned, found, strips[data, tuned])
    ]
    return document(data, *parts, up=ROOT)


def _sections(content: Content, tuned: int, found: Leaderboard, strips: Strips) -> list[Markup]:
    also = f", tuned by {counted(tuned, 'trial')}" if tuned else ""
    return [
        section(
            anchor("board", tuned),
            f"Board{also}",
            *(tag("p", marked(said)) for said in reading.of_board(found)),
            _board(anchor("table", tuned), found, strips),
            pareto(found, ROOT),
            *_notes(found, anchor("lacking", tuned)),
        ),
        *([_chosen(found, tuned)] if tuned else []),
        section(anchor("protocol", tuned), f"Protocol{also}", *_protocol(content, found)),
        section(
            anchor("runs", tuned),
            f"Runs{also}",
            tag("p", "All of them again, by a command that goes on where it was:"),
            code(again(content, found, list(found.runs))),
            runs(content, found),
        ),
    ]


def _board(name_: str, found: Leaderboard, strips: Strips) -> Markup:
    modalities = list(dict.fromkeys(m for line in found.lines for m in line.probe))
    heads = ("method", "by seed", *HEADS, *_MORE, *(f"probe {m}" for m in modalities))
    telling = any(line.complete for line in found.lines)
    rows = [_row(line, strips, modalities, telling) for line in found.lines]
    return board(name_, strips.legend, heads, rows)


def _row(line: Line, strips: Strips, modalities: Sequence[str], telling: bool) -> Row:
    probes = [number(line.probe.get(m, math.nan), 3) for m in modalities]
    strip = Cell(strips.strip(line.method), line.metric.mean)
    inside = [strip, *cells(line, ROOT, telling), *_more(line), *probes]
    return Row(name(line, ROOT), inside, {}, kind(line))


def _more(line: Line) -> list[Cell]:
    """The statistics that stand beside those of every table."""
    return [
        number(line.last, 3),
        number(line.iqm.mean, 3),
        number(line.improvement.mean, 2),
        Cell(ends(*line.bca), line.bca[0]),
        Cell(p_text(line.p_wilcoxon), line.p_wilcoxon),
    ]


def _notes(found: Leaderboard, name_: str) -> list[Markup]:
    """What makes lines incomplete, and what has none."""
    told = [tag("li", reason) for reason in lacking(found)]
    link = tag("a", "How to make the runs that are lacking.", href=f"{ROOT}{INDEX}#reading")
    heading = tag("h3", "Incomplete lines", id=name_)
    notes = [heading, tag("ul", *told), tag("p", link)] if told else []
    told = [
        tag("li", tag("a", title(method), href=ROOT + method_page(method)), ": ", marked(why))
        for method, why in found.failed.items()
    ]
    return notes + ([tag("h3", "Without a result"), tag("ul", *told)] if told else [])


def _chosen(found: Leaderboard, tuned: int) -> Markup:
    """What the search chose for every method."""
    rows = [
        [
            line.title,
            tag("code", arguments(next(iter(found.runs[line.method].values()))["arguments"])),
        ]
        for line in found.lines
    ]
    heads = ("method", "hyper-parameters")
    best = f"The best of {counted(tuned, 'trial')} on the validation data"
    chosen = table(best, heads, rows)
    return section(f"chosen-{tuned}", "Hyper-parameters", tag("div", chosen, class_="words"))


def _protocol(content: Content, found: Leaderboard) -> list[Markup]:
    """What the runs share; said by one of them, and whether the others have the same."""
    every = [run for runs in found.runs.values() for run in runs.values()]
    prints = sorted({run["fingerprint"] for run in every})
    protocol = content.protocol(content.example(found))
    notice = "Not all of these runs are comparable: they have several fingerprints."
    return [
        *([tag("p", notice, class_="notice")] if len(prints) > 1 else []),
        terms({"Fingerprint": ", ".join(prints), **_facts(protocol)}),
        tag(
            "details",
            tag("summary", "All of it"),
            code(json.dumps(protocol, indent=1, ensure_ascii=False)),
        ),
    ]


def _facts(protocol: Mapping[str, Any]) -> dict[str, str]:
    shapes, encoders = protocol["shapes"], protocol["encoders"]
    recipe = (*SETTINGS, "patience")
    return {
        "Task": protocol["task"],
        "Samples": ", ".join(f"{n:,} {split}" for split, n in protocol["samples"].items()),
        "Modalities": ", ".join(f"{m} {tuple(shapes[m])}, {encoders[m]}" for m in shapes),
        "Fusion": str(protocol["fusion"]),
        "Recipe": ", ".join(f"{key} {protocol[key]}" for key in recipe if protocol.get(key)),
        "Selection": protocol["selection"],
        "Versions": ", ".join(f"{name} {x}" for name, x in protocol["versions"].items()),
        "Commit": protocol["commit"] or "",
    }
