"""The verdict on six known cases: real trainings, diagnosed as a user would.

    python benchmarks/verdict_cases.py runs/verdict_cases --out docs/results [--seeds 5]

Each case is trained jointly by `equivox train` with its recipe and diagnosed by `equivox diagnose`,
for every seed. `avmnist` needs `EQUIVOX_DATA`. What is in the folder already is not made again.

The gains of methods in `docs/results/table.csv`, divided by what the late fusion gains here, are
the shares by which the prescription says what to expect.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from equivox.bench.folder import RESULT
from equivox.cli import main as equivox
from equivox.diagnosis.prescription import RULES
from equivox.diagnosis.verdict import BALANCED, IMBALANCED, limit

TABLE = Path(__file__).parents[1] / "docs" / "results" / "table.csv"


@dataclass(frozen=True)
class Case:
    """A data set with its options, and the modality that fares badly in joint training.

    Attributes: `table`, the name of the data in `table.csv`, empty where it is not there.
    """

    name: str
    data: str
    worst: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""


PAIRS = {"train_samples": 3000}

CASES = (
    Case("latent2", "latent2", "hard", table="latent2"),
    Case("latent3", "latent3", "hard", table="latent3"),
    Case("digits", "digits", "gray", table="digits"),
    Case("balanced", "balanced", None),
    Case(
        "avmnist, noisy audio", "avmnist", "audio",
        {"image": "image", "audio": "audio_noisy"} | PAIRS, "avmnist:train_samples=3000",
    ),
    Case(
        "avmnist, degraded image", "avmnist", "audio",
        {"image": "image_degraded", "audio": "audio"} | PAIRS,
    ),
)  # fmt: skip

Plain = dict[str, Any]
Found = Sequence[tuple[Case, Sequence[Plain]]]
"""The cases with their diagnoses, one a seed."""


def diagnosed(case: Case, seed: int, runs: Path) -> Plain:
    """The diagnosis of a case in plain values, made where it is not there yet."""
    run = runs / f"{case.name.replace(', ', '-').replace(' ', '_')}-{seed}"
    page = run.with_suffix(".html")
    if not page.with_suffix(".json").exists():
        if not (run / RESULT).exists():
            begun = ["--resume", str(run)] if run.exists() else _begin(case, seed, run)
            _called("train", *begun, "--quiet")
        _called("diagnose", str(run), "--out", str(page))
    found: Plain = json.loads(page.with_suffix(".json").read_bytes())
    return found


def _begin(case: Case, seed: int, run: Path) -> list[str]:
    options = [f"--option={name}={value}" for name, value in case.options.items()]
    return ["--data", case.data, "--seed", str(seed), *options, "--out", str(run)]


def _called(*words: str) -> None:
    if code := equivox(words):
        raise SystemExit(f"`equivox {' '.join(words)}` ended with {code}.")


def said(found: Plain) -> str:
    """The verdict in words."""
    verdict = found["verdict"]
    if verdict["kind"] != IMBALANCED:
        return str(verdict["kind"])
    whom = {"neglected": verdict["neglected"], "held back": verdict["held_back"]}
    return ", ".join(f"{' and '.join(names)} {what}" for what, names in whom.items() if names)


def right(case: Case, found: Plain) -> bool:
    """Whether the modality that fares badly is named, and no other one."""
    verdict = found["verdict"]
    blamed = [*verdict["neglected"], *verdict["held_back"]]
    return blamed == [case.worst] if case.worst else verdict["kind"] == BALANCED


def shares(found: Found) -> dict[str, list[float]]:
    """The least, the median and the most of the late fusion's gain that each method gained."""
    known: dict[str, list[float]] = {}
    methods = {rule.advice.method for rule in RULES if rule.shares}
    gains = {c.table: fmean(f["headroom"]["gain"]["value"] for f in x) for c, x in found if c.table}
    for row in csv.DictReader(TABLE.read_text().splitlines()):
        if row["data"] in gains and row["method"] in methods and row["tuned"] == "0":
            share = float(row["over_joint"]) / gains[row["data"]]
            known.setdefault(row["method"], []).append(share)
    return {m: [round(f(x), 2) for f in (min, median, max)] for m, x in sorted(known.items())}


# ── the page ────────────────────────────────────────────────────────────────────────────────────


def page(found: Found, command: str) -> str:
    """The verdicts by case, what each rests on, and the shares."""
    return "\n".join(
        [
            "# The verdict on known cases",
            "",
            "Joint training with each data set's recipe, and `equivox diagnose` on the run; a "
            "verdict a seed. The late fusion and the rule of being held back were made with the "
            "first three seeds of `avmnist` known; the other two confirm them. The command:",
            "",
            f"    {command}",
            "",
            "| case | worst off | verdicts | right |",
            "| --- | --- | --- | ---: |",
            *(_row(case, each) for case, each in found),
            "",
            "## What each verdict rests on",
            "",
            "Gain is that of the late fusion over the network. The gap is that of the encoder's "
            "probe to the same encoder trained alone, with its 95 % interval over the test samples."
            " Listening and reliance are the network's share of what a late fusion does when the "
            f"modality is exchanged. Neglected: a gap from {limit('probe gap'):g} on whose interval"
            f" lies above {limit('sure gap'):g}, and both shares below {limit('listening'):.0%}. "
            "Held back, where none is neglected: the interval of the gap lies above "
            f"{limit('probe gap'):g}, and that of the gain above zero.",
            "",
            "| case | seed | network | gain | modality | alone | probe | gap | listening "
            "| reliance | verdict |",
            "| --- | ---: | ---: | --- | --- | ---: | ---: | --- | ---: | ---: | --- |",
            *(line for case, each in found for line in _evidence(case, each)),
            "",
            "## What methods gained",
            "",
            "Gains over joint training of `table.csv`, as shares of the late fusion's gain here, "
            "on the data sets that are in both and have a modality that fares badly.",
            "",
            "| method | least | median | most |",
            "| --- | ---: | ---: | ---: |",
            *(
                f"| {m} | " + " | ".join(f"{x:.2f}" for x in ends) + " |"
                for m, ends in shares(found).items()
            ),
            "",
        ]
    )


def _row(case: Case, found: Sequence[Plain]) -> str:
    words = [said(each) for each in found]
    counted = ", ".join(f"{w} ({words.count(w)})" for w in dict.fromkeys(words))
    hits = sum(right(case, each) for each in found)
    return f"| {case.name} | {case.worst or 'nobody'} | {counted} | {hits} of {len(found)} |"


def _evidence(case: Case, found: Sequence[Plain]) -> Iterator[str]:
    for seed, each in enumerate(found):
        head, probes = each["headroom"], each["probes"]
        for m, known in each["verdict"]["modalities"].items():
            yield (
                f"| {case.name} | {seed} | {head['joint']['value']:.3f} | {_signed(head['gain'])} "
                f"| {m} | {head['alone'][m]['value']:.3f} | {probes[m]['joint']['value']:.3f} "
                f"| {_signed(probes[m]['gap'])} "
                f"| {_share(known['listening'])} | {_share(known['reliance'])} | {said(each)} |"
            )


def _share(x: float | None) -> str:
    return "-" if x is None else f"{x:.0%}"


def _signed(x: Plain) -> str:
    return f"{x['value']:+.3f} ({x['low']:+.3f} to {x['high']:+.3f})"


def main() -> None:
    """Train and diagnose what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="a folder for the runs and their pages")
    parser.add_argument("--out", type=Path, help="a folder for verdict_cases.md and its twin")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    given = parser.parse_args()
    found = [(c, [diagnosed(c, s, given.runs) for s in range(given.seeds)]) for c in CASES]
    command = "python benchmarks/verdict_cases.py runs/verdict_cases --out docs/results"
    text = page(found, command)
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "verdict_cases.md").write_text(text)
        facts = {
            "verdicts": {case.name: [said(each) for each in x] for case, x in found},
            "shares": shares(found),
        }
        (given.out / "verdict_cases.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
