"""Sets the runs of `make table` beside the reference values of the default data.

    python benchmarks/reference.py runs/table --out docs/results

The reference values were measured by plain scripts when the data sets were designed: means and
standard deviations over five seeds (`latent3`: three), weights of the last epoch. `branch` is the
accuracy of a modality's share of the fused logits, `probe` that of a logistic regression on the
encoder's features.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from equivox.bench.records import records

Value = tuple[float, float] | float

REFERENCE: dict[tuple[str, str], dict[str, Value]] = {
    ("latent2", "joint"): {
        "accuracy": (0.955, 0.004),
        "branch easy": 0.920,
        "probe easy": 0.929,
        "branch hard": (0.494, 0.096),
        "probe hard": (0.831, 0.005),
    },
    ("latent2", "ogm_ge"): {
        "accuracy": (0.976, 0.002),
        "branch easy": 0.904,
        "probe easy": 0.930,
        "branch hard": 0.704,
        "probe hard": 0.847,
    },
    ("latent2", "unimodal_losses"): {
        "accuracy": (0.983, 0.002),
        "branch easy": 0.925,
        "probe easy": 0.929,
        "branch hard": 0.844,
        "probe hard": 0.874,
    },
    ("latent3", "joint"): {
        "accuracy": 0.971,
        "branch hard": 0.353,
        "probe hard": 0.810,
        "probe weak": 0.670,
    },
    ("latent3", "ogm_ge"): {"accuracy": 0.981, "probe hard": 0.820},
    ("latent3", "unimodal_losses"): {"accuracy": 0.989, "probe hard": 0.864},
    ("digits", "joint"): {
        "accuracy": (0.656, 0.013),
        "branch gray": 0.109,
        "probe gray": (0.852, 0.009),
        "branch colour": 0.519,
        "probe colour": 0.627,
    },
    ("digits", "ogm_ge"): {
        "accuracy": (0.693, 0.008),
        "branch gray": 0.243,
        "probe gray": (0.879, 0.011),
        "branch colour": 0.347,
        "probe colour": 0.604,
    },
    ("digits", "unimodal_losses"): {
        "accuracy": (0.707, 0.008),
        "branch gray": 0.219,
        "probe gray": (0.906, 0.008),
        "branch colour": 0.557,
        "probe colour": 0.641,
    },
}


def measured(runs: list[dict[str, Any]], what: str) -> list[float]:
    """The value of every seed."""
    kind, _, modality = what.partition(" ")
    if kind == "probe":
        return [run["probe"][modality] for run in runs]
    if kind == "branch":
        return [run["last"]["branches"][modality] for run in runs]
    return [run["last"]["test"]["accuracy"] for run in runs]


def table(out: Path) -> str:
    """All reference values and what was found."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records(out):
        if not record["tuned"]:
            found.setdefault((record["data"], record["method"]), []).append(record)
    lines = [
        "| data | run | value | reference | found | seeds |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for (data, method), values in REFERENCE.items():
        runs = found.get((data, method), [])
        for what, expected in values.items():
            numbers = measured(runs, what)
            here = _text((fmean(numbers), stdev(numbers))) if len(numbers) > 1 else "missing"
            lines.append(
                f"| {data} | {method} | {what} | {_text(expected)} | {here} | {len(runs)} |"
            )
    return "\n".join(lines) + "\n"


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3f} ± {value[1]:.3f}"
    return f"{value:.3f}"


def main() -> None:
    """Print the table, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="the folder of a comparison")
    parser.add_argument("--out", type=Path, help="a folder for reference.md")
    given = parser.parse_args()
    text = table(given.runs)
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "reference.md").write_text(text)


if __name__ == "__main__":
    main()
