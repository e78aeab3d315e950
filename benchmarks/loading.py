"""How many samples a second are decoded, and how long training waits for them.

    python benchmarks/loading.py [--samples 640] [--rounds 3] [--steps 8] [--out DIR]

The sets are written in their real layouts. Pictures are smooth with noise on them, about as many
bytes as photographs; a few dozen are used again and again. A pass over the training data counts the
start of the workers, and nothing is done with the samples. Waiting is that of joint training of the
set's own network; the first batch, which no step can hide, stands apart. All cases are measured in
turn within every round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

import equivox as ev
from equivox.data import MultimodalData, fakes, tables
from equivox.data.sets.crema_d import CLASSES as EMOTIONS
from equivox.fusion import FUSIONS
from equivox.method import Batch

PICTURES = 48
DISHES = 16
TITLE = "RT Best easy homemade chicken with lemon, garlic and butter | How to make it #food"
TEXT = """\
Files as large as the real ones, from the file cache of the operating system: CREMA-D with wav of
three seconds at 16 kHz, or as named, and frames of 480 x 360; UPMC Food-101 with images of 512 x
384. *Waited* is the share of a training step that passes until its batch is there, after the first
one; *alone* is the step when its batch is in memory and no worker runs. Batches and encoders
(ResNet-18) are those of the sets' defaults. Made by `benchmarks/loading.py --out docs/results`."""

# ── the files ───────────────────────────────────────────────────────────────────────────────────


def pictures(height: int, width: int) -> list[bytes]:
    """Smooth pictures with noise on them, as jpg: about as many bytes as photographs have."""
    from PIL import Image

    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(PICTURES):
        coarse = torch.rand(1, 3, height // 16, width // 16, generator=draw)
        smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        pixels = smooth * 220 + 6 * torch.randn(3, height, width, generator=draw)
        file = io.BytesIO()
        array = pixels.clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(file, "jpeg", quality=90)
        found.append(file.getvalue())
    return found


def crema_d(root: Path, samples: int, rate: int) -> None:
    """CREMA-D of so many training clips, each of three seconds and three frames."""
    frames = pictures(360, 480)
    for part, count in (("my_train", samples), ("val", 12), ("test", 12)):
        rows = []
        for i in range(count):
            emotion = EMOTIONS[i % len(EMOTIONS)]
            clip = f"{1001 + i % 91}_{part}{i}_{emotion}_XX"
            fakes.write_tone(root / "AudioWAV" / f"{clip}.wav", 200.0 + i, 3.0, rate, seed=i)
            folder = root / "Image-01-FPS" / clip
            folder.mkdir(parents=True)
            for k in range(3):
                (folder / f"{k + 1:05d}.jpg").write_bytes(frames[(3 * i + k) % PICTURES])
            rows.append((clip, emotion))
        tables.written(root / f"{part}.csv", rows)


def food101(root: Path, samples: int) -> None:
    """UPMC Food-101 of at least so many training images, after validation was held out."""
    images = pictures(384, 512)
    for part, count in (("train", -(-samples // DISHES) * 10 // 9 + 1), ("test", 2)):
        rows = []
        for dish in (f"dish_{i:02d}" for i in range(DISHES)):
            folder = root / "images" / part / dish
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{dish}_{i}.jpg").write_bytes(images[len(rows) % PICTURES])
                rows.append((f"{dish}_{i}.jpg", TITLE, dish))
        header = ("Image_path", "text", "label")
        tables.written(root / "texts" / f"{part}_titles.csv", rows, header)


SETS = {
    "crema_d": lambda root, samples: crema_d(root, samples, 16_000),
    "crema_d 44.1 kHz": lambda root, samples: crema_d(root, samples, 44_100),
    "food101": food101,
}
TRAINED = ("crema_d", "food101")


# ── what is measured ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """A set, how many processes decode it, and whether from a cache."""

    name: str
    workers: int
    cache: bool

    def load(self, folder: Path) -> MultimodalData:
        """The data; the cache is built where there is none."""
        known = self.name.partition(" ")[0]
        where = {"root": folder / self.name, "cache": folder / "cache" if self.cache else None}
        return ev.data.load(known, workers=self.workers, **where)


def rate(data: MultimodalData) -> float:
    """Samples a second of a pass over the training data."""
    start, count = time.perf_counter(), 0
    for _, target, _ in data.loader("train"):
        count += len(target)
    return count / (time.perf_counter() - start)


class Trained:
    """The set's own network under joint training."""

    def __init__(self, data: MultimodalData, device: str) -> None:
        torch.manual_seed(0)
        fusion = FUSIONS[data.fusion](data.widths, data.outputs)
        model = ev.Multimodal(data.encoders(), fusion)
        self.device = torch.device(device)
        self.balancer = ev.Balancer(model, task=data.task).to(self.device)
        recipe = data.recipe
        sgd = torch.optim.SGD(self.balancer.parameters(), recipe.lr, recipe.momentum)
        self.optimizer = self.balancer.attach(sgd)

    def step(self, items: Any) -> None:
        """An update, waited for."""
        self.balancer(*Batch.of(items).to(self.device).items()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def waiting(self, data: MultimodalData, steps: int) -> tuple[float, float, float]:
        """Seconds until the first batch, share of later waiting, and seconds of a later step."""
        moments, waits = [time.perf_counter()], []
        for items in data.loader("train", drop_last=True):
            waits.append(time.perf_counter() - moments[-1])
            self.step(items)
            moments.append(time.perf_counter())
            if len(waits) == steps + 1:
                break
        whole = moments[-1] - moments[1]
        return waits[0], sum(waits[1:]) / whole, whole / (len(waits) - 1)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = numpy.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "low": low, "high": high}


def passes(cases: Sequence[Case], folder: Path, rounds: int) -> list[dict[str, Any]]:
    """The samples a second of every case."""
    data = {case: case.load(folder) for case in cases}
    found: dict[Case, list[float]] = {case: [] for case in cases}
    for case in cases:  # nothing is read for the first time while it is timed
        rate(data[case])
    for _ in range(rounds):
        for case in cases:
            found[case].append(rate(data[case]))
            print(f"{case}: {found[case][-1]:.0f} samples a second", file=sys.stderr)
    return [asdict(case) | {"samples_a_second": quartiles(v)} for case, v in found.items()]


def waits(
    cases: Sequence[Case], folder: Path, rounds: int, steps: int, device: str
) -> list[dict[str, Any]]:
    """How long training waits in the cases of one set."""
    data = {case: case.load(folder) for case in cases}
    trained = Trained(data[cases[0]], device)
    items = next(iter(data[cases[0]].loader("train")))
    trained.step(items)
    alone: list[float] = []
    found: dict[Case, list[tuple[float, float, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        start = time.perf_counter()
        trained.step(items)
        alone.append(time.perf_counter() - start)
        for case in cases:
            found[case].append(trained.waiting(data[case], steps))
            print(f"{case}: waits for {found[case][-1][1]:.2%} of a step", file=sys.stderr)
    rows = []
    for case, values in found.items():
        first, share, each = (list(column) for column in zip(*values, strict=True))
        named = {"first_seconds": first, "share_waited": share, "step_seconds": each}
        measured = {what: quartiles(x) for what, x in (named | {"alone_seconds": alone}).items()}
        rows.append(asdict(case) | {"batch": len(items[1])} | measured)
    return rows


# ── telling ─────────────────────────────────────────────────────────────────────────────────────


def facts(device: str) -> dict[str, Any]:
    """The machine and how busy it was."""
    known = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", known.read_text() if known.is_file() else "")
    return {
        "processor": names[0] if names else platform.machine(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def shown(values: dict[str, float], digits: int, factor: float = 1) -> str:
    """`median (low to high)`."""
    median, low, high = (f"{factor * values[k]:.{digits}f}" for k in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def head(row: dict[str, Any]) -> str:
    """The cells that name a case."""
    return f"| {row['name']} | {row['workers']} | {'yes' if row['cache'] else 'no'} |"


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine = found["machine"]
    lines = [
        f"# How fast samples are decoded\n\n{TEXT}\n",
        f"{machine['processor']}, {machine['cores']} cores; training on {machine['device']}, "
        f"{machine['threads']} threads, torch {machine['torch']}; load average at the start "
        f"{machine['load']}. Medians of {found['rounds']} rounds, quartiles in brackets.\n",
        "| set | workers | cache | samples a second |",
        "| --- | ---: | --- | ---: |",
    ]
    lines += [f"{head(row)} {shown(row['samples_a_second'], 0)} |" for row in found["passes"]]
    lines += [
        "",
        "| set | workers | cache | batch | % waited | s a step | alone | s to the first batch |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"{head(row)} {row['batch']} | {shown(row['share_waited'], 2, 100)} "
        f"| {shown(row['step_seconds'], 2)} | {row['alone_seconds']['median']:.2f} "
        f"| {row['first_seconds']['median']:.2f} |"
        for row in found["waiting"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files, measure, print and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=640, help="of the training data")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is timed")
    parser.add_argument("--steps", type=int, default=8, help="updates, more than 4 fetched ahead")
    parser.add_argument("--device", default="cpu", help="where to train (cpu)")
    parser.add_argument("--sets", default=",".join(SETS), help="names with commas")
    parser.add_argument("--out", type=Path, help="a folder for the tables and the JSON")
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": facts(given.device), "rounds": given.rounds}
    names = given.sets.split(",")
    cases = [
        Case(n, workers, cache) for n in names for workers in (0, 2) for cache in (False, True)
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in names:
            SETS[name](folder / name, given.samples)
        found["passes"] = passes(cases, folder, given.rounds)
        found["waiting"] = []
        for name in names:
            mine = [case for case in cases if case.name == name]
            if name in TRAINED:
                found["waiting"] += waits(mine, folder, given.rounds, given.steps, given.device)
    print(page(found))
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "loading.json").write_text(json.dumps(found, indent=1) + "\n")
        (given.out / "loading.md").write_text(page(found))


if __name__ == "__main__":
    main()
