"""Draws the README's picture: what joint training does to an encoder, and what helps.

    python benchmarks/picture.py docs/picture.svg

On `latent2`, five seeds: a linear probe of the hard modality's encoder on the validation data
after every epoch, trained alone, jointly, and jointly with three cures; and the accuracy on the
test data of the epoch that is best on the validation data.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

from equivox.bench.experiment import Experiment
from equivox.bench.measure import probes
from equivox.bench.statistics import interval
from equivox.bench.training import train

ROWS = {
    "ensemble": "each modality alone",
    "joint": "joint training",
    "ogm_ge": "OGM-GE",
    "mmcosine": "MMCosine",
    "unimodal_losses": "unimodal losses",
}
COLOURS = ("#555555", "#c23b22", "#1f77b4", "#8a5ab8", "#2a8a4a")
STYLES = ("--", "-", "-.", ":", "-")


def measured(method: str, seed: int) -> tuple[list[float], float]:
    """The probe of `hard` after every epoch, and the test accuracy."""
    result = train(Experiment("latent2", method, seed), measure=_probe)
    return [record["hard"] for record in result.history], result.best["test"]["accuracy"]


def _probe(balancer: Any, data: Any) -> dict[str, float]:
    loaders = [data.loader(s, batch_size=4096, shuffle=False) for s in ("train", "validation")]
    return probes(balancer, *loaders)


def draw(found: dict[str, list[tuple[list[float], float]]], path: Path) -> None:
    """Two panels: probes over epochs, and accuracies with their intervals."""
    from matplotlib import pyplot

    matplotlib.rcParams.update({"font.size": 11, "svg.fonttype": "none", "svg.hashsalt": "equivox"})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 2))
    for (method, runs), colour, style in zip(found.items(), COLOURS, STYLES, strict=True):
        curve = [fmean(values) for values in zip(*(run[0] for run in runs), strict=True)]
        epochs = range(1, len(curve) + 1)
        left.plot(epochs, curve, color=colour, linestyle=style, linewidth=2, label=ROWS[method])
    left.set(title="What the hard modality's encoder has learned", xlabel="epoch")
    left.set_ylabel("accuracy of a linear probe")
    left.set_ylim(bottom=left.get_ylim()[0] - 0.05)
    left.legend(frameon=False, loc="lower right")
    for place, (method, runs) in enumerate(reversed(found.items())):
        spread = interval([run[1] for run in runs])
        colour = COLOURS[list(found).index(method)]
        right.errorbar(spread.mean, place, xerr=spread.half, color=colour, fmt="o", capsize=4)
    names = ["late fusion of both" if m == "ensemble" else ROWS[m] for m in reversed(found)]
    right.set(
        title="What the network answers rightly", xlabel="test accuracy", yticks=range(len(names))
    )
    right.set_yticklabels(names)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Train and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("path", type=Path, help="the picture, svg or png")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each row (5)")
    given = parser.parse_args()
    matplotlib.use("agg")
    found = {row: [measured(row, seed) for seed in range(given.seeds)] for row in ROWS}
    draw(found, given.path)


if __name__ == "__main__":
    main()
