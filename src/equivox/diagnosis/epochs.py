"""Epochs: what a network's answers and features tell of each modality, after an epoch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.answers import predicted
from equivox.diagnosis.metric import value
from equivox.diagnosis.onset import Number
from equivox.diagnosis.probes import Split, probe
from equivox.features import Features, vector
from equivox.functional.clustering import cluster_purity
from equivox.functional.discrepancy import ratio_to_others
from equivox.functional.labels import single_classes
from equivox.functional.learning_speed import conditional_utilisation
from equivox.functional.sampling import stratified
from equivox.task import Classification, Dense, MultiLabel

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.method import Batch
    from equivox.model import Output
    from equivox.task import Task

Found = dict[str, dict[str, Number]]
"""Numbers by curve and modality."""

MOST_SAMPLES = 1000
"""Clusters and probes read as many samples of a split at most: they are recorded every epoch."""


def rows(balancer: Balancer, output: Output, batch: Batch) -> dict[str, Any]:
    task, target = balancer.task, batch.target
    return {
        "target": target,
        "whole": balancer.method.predict(output),
        "own": output.unimodal,
        "others": {m: _without(balancer, output.features, m) for m in output.features},
        "score": {m: task.score(z, target) for m, z in output.split.items()},
        "features": {m: vector(z) for m, z in output.features.items()},
    }


def _without(balancer: Balancer, features: Features, modality: str) -> Tensor:
    """The prediction with one modality blanked."""
    return predicted(balancer, balancer.model.blanked(features, set(features) - {modality}))


def answered(task: Task, rows: Mapping[str, Any]) -> Found:
    """What the answers on one split tell."""
    target = rows["target"]
    whole = value(task, rows["whole"], target)
    ratios = ratio_to_others({m: score.sum() for m, score in rows["score"].items()})
    return {
        "metric": {m: value(task, z, target) for m, z in rows["own"].items()},
        "loss": {m: float(task.loss(z, target)) for m, z in rows["own"].items()},
        "discrepancy": {m: float(rho) for m, rho in ratios.items()},
        "utilisation": {
            m: _utilisation(whole, value(task, z, target)) for m, z in rows["others"].items()
        },
    }


def _utilisation(whole: float, without: float) -> Number:
    """None where nothing is right, or R2 is negative: there is nothing to have a part in."""
    if not whole > 0:
        return None
    return float(conditional_utilisation(*torch.tensor([whole, without]).double().unbind()))


def encoded(task: Task, rows: Mapping[str, Any]) -> Found:
    """What the features of the encoders tell."""
    found: Found = {}
    labelled = isinstance(task, Classification | MultiLabel)
    if rows and labelled and importlib.util.find_spec("sklearn"):
        known = rows["train" if "train" in rows else "validation"]["target"]
        found = {f"purity_{s}": _purities(task, part, known) for s, part in rows.items()}
    if len(rows) == 2 and not isinstance(task, Dense):
        train, held_out = (rows[split] for split in ("train", "validation"))
        found["probe"] = {m: _probed(task, train, held_out, m) for m in train["features"]}
    return found


def _purities(task: Task, rows: Mapping[str, Any], known: Tensor) -> dict[str, Number]:
    """The purity of each modality's features; `known` are the targets that number the classes."""
    clusters = len(single_classes(task, known, known).unique())
    labels = single_classes(task, rows["target"], known)
    chosen = stratified(labels, MOST_SAMPLES)
    found: dict[str, Number] = {}
    for m, z in rows["features"].items():
        few = z[chosen].float()
        usable = len(few) >= clusters and bool(few.isfinite().all())
        found[m] = cluster_purity(few, labels[chosen], clusters) if usable else None
    return found


def _probed(task: Task, train: Mapping[str, Any], held_out: Mapping[str, Any], m: str) -> Number:
    """The metric on validation of a linear model of one encoder's features."""
    fit, held = (_few(task, part["features"][m], part["target"]) for part in (train, held_out))
    if not (fit.features.isfinite().all() and held.features.isfinite().all()):
        return None
    return float(probe(task, fit, held).mean())


def _few(task: Task, features: Tensor, target: Any) -> Split:
    """Samples at equal distances, at most `MOST_SAMPLES`."""
    step = -(-len(features) // MOST_SAMPLES)
    labels = single_classes(task, target, target) if isinstance(task, Classification) else target
    return Split(features[::step], labels[::step])
