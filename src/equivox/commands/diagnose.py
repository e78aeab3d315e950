"""`equivox diagnose`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from equivox.commands.options import Parser, positive

ABOUT = (
    "Measures the network, trains each modality alone to compare, and says which one is\n"
    "neglected, what could be gained and what to do."
)
CONDITIONS = """\
conditions of --fail-on, for example 'imbalance>0.3', with one of < <= > >= == !=:
  imbalance    mean difference of the modalities' contributions, others blanked by zeros
  relative     that over the sum of the contributions
  gap          the largest fall of an encoder's probe below the same encoder trained alone
  neglected    how many modalities are neglected
  held_back    how many others fall short all the same
  gain         what a late fusion of the modalities alone is better by than the network
  single_gain  what the best modality alone is better by
  headroom     the larger of these two
  joint, late_fusion, chance    the metric of the network, of a late fusion, of no input
  faults       how many faults the data have
  and any number of the JSON by its names with dots, such as probes.audio.gap.low
"""


def add(commands: Any) -> Parser:
    """Add the parser."""
    parser: Parser = commands.add_parser(
        "diagnose",
        help="find out which modality a trained model neglects",
        description=ABOUT,
        epilog=CONDITIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "subject",
        metavar="RUN_DIR_OR_SPEC",
        help="the folder of a finished run, or file.py:model,loaders[,task]: the names in that file"
        " of a Multimodal or a Balancer, of its loaders by split, and of a model's task",
    )
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write the page, and its JSON")
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="CONDITION",
        help="end with 3 where NAME OP NUMBER holds, see below; repeat for more",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what is measured by, such as accuracy, balanced_accuracy, f1, map, r2, mae, miou or "
        "loss (the task's usual one)",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        default=100,
        help="the most that a modality is trained alone; it stops when it gets no better (100)",
    )
    return parser


def run(given: argparse.Namespace) -> int:
    """Diagnose a run or a model."""
    from equivox.diagnosis.command import main

    return main(given)
