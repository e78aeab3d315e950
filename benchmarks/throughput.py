"""How many runs a minute a comparison makes, and where its time goes.

    python benchmarks/throughput.py [--data latent2,digits] [--methods joint,ogm_ge,umt,ensemble]
                                    [--seeds 5] [--jobs 2]

Makes a comparison in a new folder by `equivox compare`, with the recipes' epochs, and deletes it.
The time of the processes is what passed times their number. `training` are the updates, `the rest
of the runs` evaluation after every epoch, checkpoints that are synced to the disk, probes and
contributions at the end; `start` is what passed before and between runs: processes that start and
import torch, and those that wait for the last run. Processor time is what matters where other work
goes on beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def measured(given: argparse.Namespace, out: Path) -> dict[str, float]:
    """The seconds that passed, and those of processes that went into runs."""
    words = ["compare", "--data", given.data, "--methods", given.methods, "--out", str(out)]
    words += ["--seeds", str(given.seeds), "--jobs", str(given.jobs)]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "equivox.cli", *words], check=True, stdout=subprocess.DEVNULL
    )
    passed = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    records = [json.loads(p.read_bytes()) for p in out.glob("runs/*/*/*/record.json")]
    shared = [json.loads(p.read_bytes()) for p in out.glob("runs/*/*/*/shared.json")]
    training = sum(r["seconds"] for r in records) - sum(sum(s.values()) for s in shared)
    return {
        "runs": len(records),
        "seconds": passed,
        "processor": used.ru_utime + used.ru_stime,
        "training": training,
        "rest": sum(r["wall"] for r in records) - training,
    }


def facts() -> dict[str, Any]:
    """The machine and how busy it was."""
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in lines.splitlines() if "model name" in line]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", default="latent2,digits", help="as of `equivox compare`")
    parser.add_argument("--methods", default="joint,ogm_ge,umt,ensemble", help="the same")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each method (5)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    given = parser.parse_args()
    machine = facts()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(given, Path(folder) / "out")
    whole = found["seconds"] * given.jobs
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(
        f"{found['runs']} runs in {found['seconds']:.0f} s on {given.jobs} processes: "
        f"{60 * found['runs'] / found['seconds']:.1f} runs a minute; of processor time "
        f"{found['processor'] / found['runs']:.1f} s a run"
    )
    start = whole - found["training"] - found["rest"]
    parts = {"training": found["training"], "the rest of the runs": found["rest"], "start": start}
    for name, seconds in parts.items():
        print(f"{name:22}{seconds:7.0f} s  {seconds / whole:4.0%}")


if __name__ == "__main__":
    main()
