"""Folders of finished runs with given numbers, as a comparison leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TASK = "Classification(classes=2, label_smoothing=0.0)"


def record(
    out: Path,
    method: str,
    values: Sequence[float],
    *,
    data: str = "latent2",
    validation: float | None = None,
    tuned: int = 0,
    metric: str = "accuracy",
    right: int = 90,
    **more: Any,
) -> None:
    """One finished run a value, of seeds 0, 1, …; `right` of 100 test samples are answered well.

    :param validation: The metric on the validation data, that on the test data where not given.
    :param more: Further or other entries of the record.
    """
    for seed, value in enumerate(values):
        held = value if validation is None else validation
        label = method + (f" tuned-{tuned}" if tuned else "")
        folder = out / "runs" / data / label / f"seed-{seed}"
        folder.mkdir(parents=True)
        written = {
            "data": data,
            "method": method,
            "seed": seed,
            "tuned": tuned,
            "metric": metric,
            "validation": -held if metric == "loss" else held,
            "test": {metric: value},
            "last": {"test": {metric: value}},
            "probe": {"easy": 0.9, "hard": 0.8},
            "imbalance": 0.25,
            "seconds": 2.0,
            "fingerprint": "abc",
            "epoch": 4,
            "arguments": {},
        }
        (folder / "record.json").write_text(json.dumps(written | more))
        _answer(folder, right)


def fail(out: Path, method: str, seed: int, error: str = "The loss is not finite.") -> None:
    """A run that diverged."""
    folder = out / "runs" / "latent2" / method / f"seed-{seed}"
    folder.mkdir(parents=True)
    names = {"data": "latent2", "method": method, "seed": seed, "tuned": 0}
    (folder / "failed.json").write_text(json.dumps(names | {"error": error}))


def _answer(folder: Path, right: int) -> None:
    said = torch.tensor([[0.0, 1.0]] * right + [[1.0, 0.0]] * (100 - right))
    save_file(
        {"best": said, "last": said.clone(), "target": torch.ones(100, dtype=torch.long)},
        folder / "predictions.safetensors",
    )
    (folder / "result.json").write_text(json.dumps({"protocol": {"task": TASK}}))


def cost(out: Path, method: str, flops: float, memory: float, step: float) -> None:
    """What a batch costs."""
    folder = out / "cost" / "latent2" / method
    folder.mkdir(parents=True)
    numbers = {"flops": flops, "memory": memory, "seconds": 0.001, "step": step}
    (folder / "record.json").write_text(json.dumps({"data": "latent2", "method": method} | numbers))
