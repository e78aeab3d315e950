"""How long a diagnosis takes, by part, without the training of the modalities alone.

    python benchmarks/diagnosis_time.py [--samples 10000] [--modalities 3] [--out FILE]

The network is a concatenation of small encoders, and so are the references, which are not trained:
what they say does not change how long it takes to ask them. A third as many samples as the test
data have are validation data, and as many training data.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

import equivox as ev
from equivox.data.base import Samples
from equivox.diagnosis.diagnose import diagnose
from equivox.diagnosis.reference import Reference
from equivox.encoders import MLP

CLASSES, WIDTH, INPUTS = 6, 32, 64


def loader(samples: int, modalities: list[str], seed: int) -> DataLoader[Any]:
    """Numbers with a little of the label in each modality."""
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(CLASSES, (samples,), generator=g)
    signal = nn.functional.one_hot(target, INPUTS) * 2.0
    inputs = {m: signal + torch.randn(samples, INPUTS, generator=g) for m in modalities}
    return DataLoader(Samples(inputs, target), 256, collate_fn=Samples.collate)


def network(modalities: list[str]) -> ev.Balancer:
    """One small encoder a modality, and a concatenation."""
    encoders = {m: MLP(INPUTS, (64, WIDTH)) for m in modalities}
    model = ev.Multimodal(encoders, ev.Concat(dict.fromkeys(modalities, WIDTH), CLASSES))
    return ev.Balancer(model, task=ev.Classification(CLASSES))


def measured(samples: int, modalities: int) -> dict[str, float]:
    """Seconds by part, as the diagnosis tells of them, and in all."""
    names = [f"m{i + 1}" for i in range(modalities)]
    sizes = {"train": samples, "validation": samples // 3, "test": samples}
    loaders = {split: loader(n, names, seed) for seed, (split, n) in enumerate(sizes.items())}
    references = {m: Reference(network([m]), 0, True) for m in names}
    told: list[tuple[str, float]] = []
    found = diagnose(
        network(names),
        loaders,
        references=references,
        told=lambda what, _: told.append((what, time.perf_counter())),
    )
    seconds = {what: after - begun for (what, begun), (_, after) in pairwise(told)}
    assert found.samples["test"] == samples
    return seconds | {"all": told[-1][1] - told[0][1]}


def main() -> None:
    """Print and write the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000, help="of the test data")
    parser.add_argument("--modalities", type=int, default=3, help="how many")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--out", type=Path, help="a file for the seconds, in JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    seconds = measured(given.samples, given.modalities)
    for what, each in seconds.items():
        print(f"{what:20} {each:7.2f} s")
    if given.out:
        given.out.write_text(json.dumps(vars(given) | {"seconds": seconds}, default=str, indent=1))


if __name__ == "__main__":
    main()
