"""Copies: of a modality in another one, and of samples in another split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from equivox.diagnosis.findings import LISTED, SPOILT, Facts, Finding
from equivox.diagnosis.tables import Split, scrambled, standardised

CORRELATED = 0.999
"""Above this, a column is a copy of another one."""


def duplicated(facts: Facts) -> Iterator[Finding]:
    tables = facts.train.tables
    for a, b in combinations(tables, 2):
        both = tables[a].there & tables[b].there
        one, other = tables[a].hashes[both], tables[b].hashes[both]
        if len(one.unique()) > 1 and torch.equal(one, other):
            yield _copy(a, b, "is an exact copy of", int(both.sum()))
            continue
        kept = facts.train.there(a, b)
        first, usable = standardised(tables[a].columns[kept])
        second, usable_too = standardised(tables[b].columns[kept])
        alike = (first.T @ second).abs() > CORRELATED
        mine, theirs = alike.any(1), alike.any(0)
        if not bool(mine.any()):
            continue
        if bool((mine == usable).all() and (theirs == usable_too).all()):
            yield _copy(a, b, f"is, with correlations above {CORRELATED}, a copy of", len(first))
        else:
            yield _shared(a, b, alike)


def _copy(a: str, b: str, how: str, count: int) -> Finding:
    what = f"`{b}` {how} `{a}` in the {count} training samples compared."
    cure = f"See whether `{a}` is read twice. A copy adds nothing: leave `{b}` out."
    return Finding("duplicated", b, "fault", what, cure, count)


def _shared(a: str, b: str, alike: Tensor) -> Finding:
    pairs = alike.nonzero()
    text = ", ".join(f"{i} of `{a}` and {j} of `{b}`" for i, j in pairs[:3].tolist())
    count = int(alike.any(0).sum())
    what = f"{count} columns of `{b}` equal one of `{a}`, up to a scale: columns {text}."
    cure = "Keep them in one of the two modalities, or what they say is counted twice."
    return Finding("duplicated", b, "warning", what, cure, count)


def duplicates(facts: Facts) -> Iterator[Finding]:
    known = [(facts.train, facts.test), (facts.validation, facts.test)]
    for a, b in (*known, (facts.train, facts.validation)):
        if a is None or b is None:
            continue
        whole = _overlap(a, b, list(a.tables))
        if whole:
            yield _in_both(a, b, None, whole, spoils=b is facts.test)
            continue
        for m in a.tables if len(a.tables) > 1 else ():
            if _varied(a, [m]) and (part := _overlap(a, b, [m])):
                yield _in_both(a, b, m, part)


def _overlap(a: Split, b: Split, modalities: Sequence[str]) -> list[tuple[int, int]]:
    """The numbers in both splits of samples with the same inputs; rows of zeros do not count."""
    ours, theirs = _row_hashes(a, modalities), _row_hashes(b, modalities)
    ordered, order = ours.sort(stable=True)
    place = torch.searchsorted(ordered, theirs).clamp(max=len(ordered) - 1)
    same = (ordered[place] == theirs) & (theirs != 0)
    pairs = torch.stack([a.index[order[place[same]]], b.index[same]], 1)
    return [(int(i), int(j)) for i, j in pairs.tolist()]


def _row_hashes(split: Split, modalities: Sequence[str]) -> Tensor:
    """(samples,) of these modalities together; zero for each that is absent or all zero."""
    parts = [scrambled(split.tables[m].hashes) * (2 * k + 1) for k, m in enumerate(modalities)]
    return torch.stack(parts).sum(0)


def _varied(split: Split, modalities: Sequence[str]) -> bool:
    """Whether the samples differ from each other, so that a repetition means something."""
    hashes = _row_hashes(split, modalities)
    return len(hashes.unique()) > 0.9 * len(hashes)


def _in_both(
    a: Split,
    b: Split,
    modality: str | None,
    found: list[tuple[int, int]],
    spoils: bool = False,
) -> Finding:
    """A fault where it spoils what is measured: in many samples, that do not repeat by nature."""
    which = "the inputs" if modality is None else f"the same `{modality}`"
    pairs = tuple(found[:LISTED])
    text = ", ".join(f"{i} and {j}" for i, j in pairs[:3])
    varied = modality is not None or _varied(a, list(a.tables))
    many = spoils and len(found) >= SPOILT * len(b.index)
    natural = "" if varied else f" Inputs repeat within the {a.name} data as well."
    return Finding(
        "duplicates",
        modality,
        "fault" if many and varied else "warning",
        f"{len(found)} of {len(b.index)} {b.name} samples have {which} of a {a.name} sample: "
        f"{text}{', …' if len(found) > 3 else ''}.{natural}",
        "Split anew so that no sample, and no source of several samples, is in two splits.",
        len(found),
        tuple(j for _, j in pairs),
        pairs,
    )
