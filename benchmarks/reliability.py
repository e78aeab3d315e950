"""Whether runs survive being killed at any moment, and whether damaged files are refused clearly.

    python benchmarks/reliability.py [--kills 100] [--files 10000] [--minutes 15] [--out DIR]

**Kills.** `equivox train` is killed by SIGKILL at a uniformly random moment of an uncut run, start
and final writing included, and resumed, up to three times in a run; one cut in five is a SIGTERM
instead, after which the run itself has to leave a checkpoint and end with 75 (or, before it has
begun, to die of it). After each cut every checkpoint in the folder has to be whole. At the end
result, metrics, predictions and best checkpoint have to be those of the uncut run, byte for byte.
A run is a process forked from one that has imported torch, as importing takes longer than the run;
one in ten is a new interpreter, and so is the uncut run.

**Files.** Whatever equivox reads is damaged at random, in its structure or in its bytes, and read.
A reader has to refuse it by an error of ours that names the file, or to read what is written there,
within five seconds of the processor and without the memory that a damaged number asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from reliability_kills import METHODS, Story, kill_runs
from reliability_reading import Outcome, read_all

from equivox.bench.folder import versions
from equivox.console import TERMINATED

WHAT = ("refused", "accepted", "broken")


def main() -> int:
    """Kill, damage, print and write; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="by SIGKILL (100)")
    parser.add_argument("--files", type=int, default=10_000, help="that are damaged (10000)")
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas")
    parser.add_argument("--minutes", type=float, default=15, help="for the kills, at most (15)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--out", type=Path, help="a folder for reliability.md and reliability.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        outcomes = read_all(given.files, given.seed, given.jobs, Path(place))
        between = time.monotonic()
        methods = given.methods.split(",")
        stories = kill_runs(
            methods, given.kills, given.seed, given.minutes, given.jobs, Path(place)
        )
    seconds = {"files": between - start, "kills": time.monotonic() - between}
    text = report(stories, outcomes, seconds, given.jobs)
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "reliability.md").write_text(text)
        told = {"seed": given.seed, "machine": machine(), "seconds": seconds}
        told |= {"stories": [asdict(story) for story in stories], "files": counts(outcomes)}
        told["broken"] = [asdict(outcome) for outcome in outcomes if outcome.what == "broken"]
        (given.out / "reliability.json").write_text(json.dumps(told, indent=1) + "\n")
    return int(any(s.wrong for s in stories) or any(o.what == "broken" for o in outcomes))


def machine() -> dict[str, Any]:
    """What ran it, and how much else ran there in the last minute."""
    cores = os.cpu_count()
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "load": os.getloadavg()[0],
        **versions(),
    }


def counts(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """How many files of every kind were refused, accepted, broken."""
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.file, Counter())[outcome.what] += 1
    return {name: {what: each[what] for what in WHAT} for name, each in found.items()}


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def report(
    stories: Sequence[Story], outcomes: Sequence[Outcome], seconds: dict[str, float], jobs: int
) -> str:
    """All tables, with the machine, and what went wrong."""
    kills, facts = sum(len(s.kills) for s in stories), machine()
    wrong = [f"- {s.method}: {each}" for s in stories for each in s.wrong]
    wrong += [f"- {o.file}, number {o.number}: {o.why}" for o in outcomes if o.what == "broken"]
    return "\n".join(
        [
            "# Reliability\n",
            "`python benchmarks/reliability.py --out docs/results`, whose docstring says how.\n",
            f"{facts['platform']}, {facts['cores']} cores of which {jobs} were asked for, torch "
            f"{facts['torch']}, Python {facts['python']}; load at the end {facts['load']:.1f}.\n",
            f"## {kills} kills in {seconds['kills'] / 60:.0f} minutes\n",
            "The runs and what became of them; the last column counts those that did not end like "
            "an uncut one, or met a damaged checkpoint.\n",
            of_kills(stories),
            table(("where a SIGKILL hit", "kills"), places(stories)),
            f"## {len(outcomes):,} damaged files in {seconds['files'] / 60:.0f} minutes\n",
            "*Refused*: by an error of ours that names the file. *Accepted*: read as it is "
            "written, and still valid. *Broken*: anything else.\n",
            of_files(outcomes),
            "## What went wrong\n",
            "\n".join(wrong) or "Nothing.",
            "",
        ]
    )


def of_kills(stories: Sequence[Story]) -> str:
    """A row a method."""
    rows = []
    for method in dict.fromkeys(story.method for story in stories):
        found = [story for story in stories if story.method == method]
        terms = [code for story in found for code in story.terms]
        rows.append(
            (
                method,
                len(found),
                sum(len(story.kills) for story in found),
                len(terms),
                terms.count(TERMINATED),
                sum(story.fresh for story in found),
                sum(bool(story.wrong) for story in found),
            )
        )
    totals = ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    heads = ("method", "runs", "SIGKILL", "SIGTERM", "ended with 75", "new interpreters", "wrong")
    return table(heads, [*rows, totals])


def places(stories: Iterable[Story]) -> list[tuple[str, int]]:
    """Where the kills hit, the most frequent first."""
    return Counter(place for story in stories for place in story.kills).most_common()


def of_files(outcomes: Sequence[Outcome]) -> str:
    """A row a kind of file."""
    found = counts(outcomes)
    rows = [(f"`{name}`", *each.values()) for name, each in found.items()]
    totals = ("all", *(sum(each[what] for each in found.values()) for what in WHAT))
    return table(("file", *WHAT), [*rows, totals])


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
