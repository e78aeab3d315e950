"""A diagnosis as text, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from equivox.report.diagnosis.training import began
from equivox.report.diagnosis.verdict import advised, gain, headline
from equivox.report.diagnosis.words import UNMOVED, capital, metric, share
from equivox.report.numbers import decimal

if TYPE_CHECKING:
    from equivox.diagnosis.diagnose import Diagnosis

WIDTH = 98


def text(found: Diagnosis) -> str:
    """The verdict, a line for each modality, and what to do, for a terminal."""
    said = (
        *found.verdict.reasons,
        *began(found),
        _levels(found),
        f"To be gained: {gain(found)}",
        *_sampled(found),
    )
    advices = (
        textwrap.fill(f"{i}. {advised(advice)}", WIDTH, subsequent_indent="   ")
        for i, advice in enumerate(found.prescription, 1)
    )
    parts = [headline(found), *map(_indented, said), "", *_table(found), "", *advices]
    return "\n".join(parts).rstrip()


def _levels(found: Diagnosis) -> str:
    head = found.headroom
    values = {"the network": head.joint.value, "late fusion": head.late_fusion.value}
    values |= {"the best single modality": head.alone[head.best_single].value}
    listed = ", ".join(f"{name} {decimal(x)}" for name, x in values.items())
    return f"{capital(metric(found))}: {listed}, chance {decimal(head.chance)}."


def _table(found: Diagnosis) -> list[str]:
    heads = ["modality", "alone", "probe", "probe alone", "gap", "contribution", "listening",
             "reliance"]  # fmt: skip
    rows = [heads, *(_line(found, m) for m in found.modalities)]
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([name.ljust(first), *(x.rjust(w) for x, w in zip(cells, widths, strict=True))])
        for name, *cells in rows
    ]


def _sampled(found: Diagnosis) -> Iterator[str]:
    if any(each.sampled for each in found.contributions.values()):
        yield "Contributions are sampled over random orders of the modalities, not exact."


def _indented(said: str) -> str:
    return textwrap.fill(said, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _line(found: Diagnosis, m: str) -> list[str]:
    probe, known = found.probes.get(m), found.verdict.modalities.get(m)
    contributed = next(iter(found.contributions.values())).values.get(m)
    values = [found.headroom.alone.get(m)]
    values += [probe.joint, probe.alone, probe.gap] if probe else [None, None, None]
    numbers = [decimal(x.value) if x else "-" for x in [*values, contributed]]
    shares = [share(known.listening), share(known.reliance)] if known else ["-", "-"]
    return [m, *("-" if x in ("not measured", UNMOVED) else x for x in [*numbers, *shares])]
