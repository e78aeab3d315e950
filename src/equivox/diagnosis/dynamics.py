"""Dynamics: what happens to each modality during training, recorded epoch by epoch."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.arguments import names, number
from equivox.diagnosis.answers import predicted
from equivox.diagnosis.metric import value
from equivox.diagnosis.onset import Number, Onset, at, collapse, onset
from equivox.diagnosis.probes import Split, probe
from equivox.features import Features, vector
from equivox.functional.clustering import cluster_purity
from equivox.functional.discrepancy import ratio_to_others
from equivox.functional.fisher import fisher_trace
from equivox.functional.gradients import flat_norm
from equivox.functional.labels import single_classes
from equivox.functional.learning_speed import (
    conditional_speeds,
    conditional_utilisation,
    learning_speed,
)
from equivox.functional.precision import at_least_float32
from equivox.functional.sampling import stratified
from equivox.mmtm import MMTMBlock
from equivox.task import Classification, Dense, MultiLabel

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.data import MultimodalData
    from equivox.method import Batch
    from equivox.model import Multimodal, Output
    from equivox.task import Task

Found = dict[str, dict[str, Number]]
"""Numbers by curve and modality."""

MOST_SAMPLES = 1000
"""Clusters and probes read as many samples of a split at most: they are recorded every epoch."""


BY_UPDATE = ("gradient_norm", "learning_speed", "fisher_trace", "update_ratio")
"""The curves that are measured at the optimizer's steps, but for the conditional speed."""


@dataclass(frozen=True)
class Dynamics:
    """Curves over the recorded epochs.

    What cannot be measured is absent: a curve as a whole, or None in its place for an epoch.

    Attributes: `modalities`; `epochs`, the numbers of the recorded ones; `onset` by modality, where
    `with_onset` was asked; `curves`, by name and modality one number an epoch:

    - `metric_train`, `loss_train`, `metric_validation`, `loss_validation`: of its own logits,
      those of its own head where there is one and else its share of the fused logits;
    - `probe`: the metric on validation of a linear model of its features, fitted on train;
    - `gradient_norm`, `update_ratio` (|step| / |weights|): of its encoder, means over the updates
      in which it had a gradient; the gradient is the one that the optimizer used;
    - `discrepancy_train`, `discrepancy_validation`: rho_m of OGM-GE (CVPR 2022), above 1 where its
      share is more confident of the truth than the others', by `ratio_to_others`;
    - `utilisation_train`, `utilisation_validation`: (A(all) - A(others)) / A(all) of the metric A,
      with this modality blanked for "others" (Wu et al., ICML 2022, who blank it inside MMTM);
    - `learning_speed`: |gradient|² / |weights|² of its encoder and its branch of the fusion, mean
      over the updates;
    - `conditional_speed`: log10 of the ratio of its bypass's to its own summed learning speed
      (Wu et al., ICML 2022), since the first update; for networks with `MMTMBlock`s;
    - `overfitting_ratio`: see `overfitting_ratio`, against the epoch `window` epochs earlier;
    - `fisher_trace`: squared gradients averaged within each weight of its encoder, summed over
      weights and the epoch's updates (InfoReg, CVPR 2025); only relative changes have a meaning;
    - `purity_train`, `purity_validation`: of K-means clusters of its features, as many as classes
      (Diagnosing and Re-learning, ECCV 2024); for classes and labels.
    """

    modalities: tuple[str, ...]
    epochs: tuple[int, ...]
    curves: Mapping[str, Mapping[str, Sequence[Number]]]
    onset: Mapping[str, Onset] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The dynamics in plain values."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Dynamics:
        """The dynamics that `to_json` wrote."""
        onset = {m: Onset(**x) for m, x in plain.get("onset", {}).items()}
        return Dynamics(tuple(plain["modalities"]), tuple(plain["epochs"]), plain["curves"], onset)

    def with_onset(self, references: Mapping[str, Sequence[Number]]) -> Dynamics:
        """The same, with the `Onset` of every modality.

        :param references: The usual metric on the validation data of modalities trained alone,
            after every epoch; what is unknown of the others is None.
        """
        known = {m: x for m, x in references.items() if x and "probe" in self.curves}
        behind = self.onsets(known) if known else {}
        fallen = {
            name: {m: self._fallen(x) for m, x in self.curves.get(name, {}).items()}
            for name in ("gradient_norm", "update_ratio")
        }
        return replace(
            self,
            onset={
                m: Onset(behind.get(m), *(by.get(m) for by in fallen.values()))
                for m in self.modalities
            },
        )

    def _fallen(self, curve: Sequence[Number]) -> int | None:
        first = collapse(curve)
        return None if first is None else self.epochs[first]

    def onsets(
        self,
        references: Mapping[str, Sequence[Number]],
        curve: str = "probe",
        margin: float = 0.02,
        steady: int = 2,
    ) -> dict[str, int | None]:
        """The epoch at which each modality falls behind its reference; see `onset`.

        :param references: The same curve of modalities trained alone, by modality, from epoch 0.
        :raises ValueError: For a curve that was not recorded, or modalities that are unknown.
        """
        names("references", references, self.modalities)
        if curve not in self.curves:
            raise ValueError(
                f"`curve` should be one that was recorded: {', '.join(self.curves)}. Found "
                f"`{curve}`. Give the recorder the loaders that it needs."
            )
        found = {}
        for modality, reference in references.items():
            aligned = [at(reference, epoch) for epoch in self.epochs]
            first = onset(self.curves[curve].get(modality, ()), aligned, margin, steady)
            found[modality] = None if first is None else self.epochs[first]
        return found


def overfitting_ratio(before: tuple[Number, Number], after: tuple[Number, Number]) -> Number:
    """OGR = |change of (L^V - L^T) / change of L^V|, from (L^T, L^V) at two epochs.

    How much a modality overfitted for what it came to generalise; None where L^V stayed the same.

    Source: What Makes Training Multi-modal Classification Networks Hard? (CVPR 2020).

    >>> round(overfitting_ratio((1.2, 1.3), (0.4, 1.0)), 4)
    1.6667
    """
    (t0, v0), (t1, v1) = before, after
    if t0 is None or v0 is None or t1 is None or v1 is None or v0 == v1:
        return None
    return abs(((v1 - t1) - (v0 - t0)) / (v0 - v1))


class Recorder:
    """Records the dynamics of a training; see `Dynamics` for what.

    Call `record()` after every epoch, and `attach()` before the first for what is measured by
    update. The training, its random state and its results stay as they are: each epoch costs one
    more pass over each loader in eval mode, each update a copy of the encoders' weights and a few
    sums that stay on the device.

    Arguments:
        balancer: of the training.
        train, validation: loaders to measure on, of the whole splits or of a part; `validation` is
            the balancer's own where not given, `train` is left out.
        window: how many epochs the `overfitting_ratio` looks back; from the first epoch at the
            start. The super-epoch of online G-Blending is 5.
        every: clusters and probes, which cost most, are recorded every so many epochs only.

    >>> from equivox import Classification, Concat, Multimodal
    >>> from equivox.balancer import Balancer
    >>> net = {"a": nn.Linear(3, 4), "b": nn.Linear(5, 4)}
    >>> balancer = Balancer(Multimodal(net, Concat({"a": 4, "b": 4}, 2)), task=Classification(2))
    >>> optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    >>> batch = {"a": torch.randn(6, 3), "b": torch.randn(6, 5)}, torch.tensor([0, 1, 0, 1, 0, 1])
    >>> recorder = Recorder(balancer, validation=[batch])
    >>> optimizer = recorder.attach()
    >>> balancer(*batch).backward()
    >>> optimizer.step()
    >>> numbers = recorder.record()
    >>> len(recorder.dynamics.curves["gradient_norm"]["a"])
    1
    """

    def __init__(
        self,
        balancer: Balancer,
        train: Iterable[Any] | None = None,
        validation: Iterable[Any] | None = None,
        *,
        window: int = 5,
        every: int = 1,
    ) -> None:
        self.balancer = balancer
        self.window = number("window", window, least=1)
        self.every = number("every", every, least=1)
        held_out = balancer.validation if validation is None else validation
        loaders = {"train": train, "validation": held_out}
        self.loaders = {split: x for split, x in loaders.items() if x is not None}
        self.epochs: list[int] = []
        self._curves: dict[str, dict[str, list[Number]]] = {}
        self._updates = _Updates(balancer.model)
        self._handles: list[Any] = []

    def attach(self, optimizer: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
        """Measure this optimizer's steps from now on; that of the balancer where not given.

        After `balancer.attach`, so that gradients are seen as the method leaves them.

        :raises RuntimeError: Where there is no optimizer.
        """
        optimizer = self.balancer.optimizer if optimizer is None else optimizer
        if optimizer is None:
            raise RuntimeError(
                "A recorder measures the steps of an optimizer. Found none. Call "
                "`balancer.attach(optimizer)` first, or pass it."
            )
        self.detach()
        self._handles = [
            optimizer.register_step_pre_hook(self._updates.before),
            optimizer.register_step_post_hook(self._updates.after),
        ]
        return optimizer

    def detach(self) -> None:
        """Measure no more steps."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def record(self) -> dict[str, float]:
        """Measure the network as it is, after an epoch.

        :returns: The epoch's numbers by "curve/modality", for a log.
        """
        balancer = self.balancer
        rows = {
            split: balancer.collect(x, lambda o, b: _rows(balancer, o, b))
            for split, x in self.loaders.items()
        }
        found = self._updates.read()
        for split, part in rows.items():
            found |= {f"{name}_{split}": x for name, x in _answered(balancer.task, part).items()}
        if len(self.epochs) % self.every == 0:
            found |= _encoded(balancer.task, rows)
        if len(rows) == 2:
            found["overfitting_ratio"] = self._overfitting(found)
        return self._append(found)

    @property
    def dynamics(self) -> Dynamics:
        """What was recorded so far."""
        known = {
            name: {m: tuple(x) for m, x in by.items() if any(y is not None for y in x)}
            for name, by in self._curves.items()
        }
        curves = {name: by for name, by in known.items() if by}
        return Dynamics(self.balancer.model.modalities, tuple(self.epochs), curves)

    def to_json(self) -> dict[str, Any]:
        """What was recorded so far, in plain values."""
        return self.dynamics.to_json()

    def _overfitting(self, found: Found) -> dict[str, Number]:
        """Against the record `window` records earlier, or the first one."""
        train, held_out = (found[f"loss_{split}"] for split in ("train", "validation"))
        if not self.epochs:
            return {}
        then = max(0, len(self.epochs) - self.window)
        ratios = {}
        for m in train:
            earlier = [self._curves[f"loss_{split}"][m][then] for split in ("train", "validation")]
            ratios[m] = overfitting_ratio((earlier[0], earlier[1]), (train[m], held_out[m]))
        return ratios

    def _append(self, found: Found) -> dict[str, float]:
        """Put the numbers at the ends of their curves, which all stay equally long."""
        count = len(self.epochs)
        last = self.epochs[-1] if self.epochs else -1
        self.epochs.append(max(self.balancer.progress.epoch, last + 1))
        flat = {}
        for name, by in found.items():
            for m, x in by.items():
                curve = self._curves.setdefault(name, {}).setdefault(m, [])
                curve += [None] * (count - len(curve))
                curve.append(x if x is not None and math.isfinite(x) else None)
                if curve[-1] is not None:
                    flat[f"{name}/{m}"] = curve[-1]
        for by_modality in self._curves.values():
            for curve in by_modality.values():
                curve += [None] * (count + 1 - len(curve))
        return flat


class Recording:
    """The `measure` of `equivox.bench.training.train`: a `Recorder` that begins with the run.

    The run calls it after its first epoch, whose updates are therefore not measured. For those
    too, attach a `Recorder` before: `Training(experiment, data).balancer`.

    Attributes: `recorder`, None before the first epoch has ended.
    """

    def __init__(self, *, window: int = 5, every: int = 1) -> None:
        self.window = number("window", window, least=1)
        self.every = number("every", every, least=1)
        self.recorder: Recorder | None = None

    def __call__(self, balancer: Balancer, data: MultimodalData) -> dict[str, float]:
        if self.recorder is None or self.recorder.balancer is not balancer:
            loaders = data.loader("train", shuffle=False), data.loader("validation")
            self.recorder = Recorder(balancer, *loaders, window=self.window, every=self.every)
            self.recorder.attach()
        return self.recorder.record()


# ── by update ───────────────────────────────────────────────────────────────────────────────────


class _Updates:
    """Sums over the updates of an epoch. Nothing is read from the device before `read`."""

    def __init__(self, model: Multimodal) -> None:
        self.encoders = {m: model.encoder_parameters(m) for m in model.modalities}
        self.blocks = [part for part in model.fusion.modules() if isinstance(part, MMTMBlock)]
        self.bypass = {m: [p for b in self.blocks for p in b.bypass(m)] for m in model.modalities}
        self.main = {m: _main(model, m, self.bypass.values()) for m in model.modalities}
        self.since_start: dict[str, dict[str, Tensor]] = {}
        self._begin()
        self._look()

    def _begin(self) -> None:
        self.sums = self.counts = torch.zeros(len(self.encoders), len(BY_UPDATE))
        self.measured: dict[str, Tensor] = {}
        self.weights: dict[str, tuple[list[nn.Parameter], list[Tensor]]] = {}

    def _look(self) -> None:
        """Whether gates are held in the next step: a method decides it before that step is made."""
        self.held = self.blocks[0].held >= 0 if self.blocks else torch.zeros((), dtype=torch.bool)

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Before the optimizer moves: gradients, and where the weights are."""
        # With a closure the gradients come inside the step: they are read after it.
        self.late = kwargs.get("closure", args[1] if len(args) > 1 else None) is not None
        if not self.late:
            self._gradients()
        for m, encoder in self.encoders.items():
            moving = [p for p in encoder if self.late or p.grad is not None]
            self.weights[m] = moving, [p.detach().clone() for p in moving]

    def after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """After it moved: how far."""
        if self.late:
            self._gradients()
        if self.measured:
            # A step that a GradScaler left out has no length: 0 / 0 is not counted.
            made = 1 - getattr(optimizer, "found_inf", torch.zeros(()))
            rows = [self._row(m, made) for m in self.encoders]
            device = next(iter(self.measured.values())).device
            self._add(torch.stack([row.to(device) for row in rows]))
        self.measured, self.weights = {}, {}
        self._look()

    @torch.no_grad()
    def _gradients(self) -> None:
        for m, encoder in self.encoders.items():
            gradients = [p.grad for p in encoder if p.grad is not None]
            if gradients:
                wide = [at_least_float32(g) for g in gradients if g.ndim >= 2]
                trace = fisher_trace(torch._foreach_mul(wide, wide) if wide else [])
                norm, speed = flat_norm(gradients), learning_speed(self.main[m])
                self.measured[m] = torch.stack([x.to(norm) for x in (norm, speed, trace)])
            if self.blocks:
                self._conditional(m)

    def _conditional(self, modality: str) -> None:
        """The sums of a branch's bypass and of itself; none are made while gates are held."""
        for name, part in (("bypass", self.bypass), ("main", self.main)):
            speed = learning_speed(part[modality])
            speed = torch.where(self.held.to(speed.device) | ~speed.isfinite(), 0, speed)
            sums = self.since_start.setdefault(name, {})
            sums[modality] = sums[modality] + speed if modality in sums else speed

    def _row(self, modality: str, made: Tensor) -> Tensor:
        """The numbers of an update, in the order of `BY_UPDATE`; NaN without a gradient."""
        if modality not in self.measured:
            return torch.full((len(BY_UPDATE),), torch.nan)
        moving, then = self.weights[modality]
        step = flat_norm(torch._foreach_sub([p.detach() for p in moving], then))
        found = self.measured[modality]
        return torch.cat([found, (step / flat_norm(then) / made).to(found).view(1)])

    def _add(self, rows: Tensor) -> None:
        """Add to the sums what is finite."""
        kept = rows.isfinite()
        self.sums = self.sums.to(rows) + torch.where(kept, rows, 0)
        self.counts = self.counts.to(rows) + kept

    def read(self) -> Found:
        """The epoch's numbers; the sums begin anew."""
        found: Found = {}
        sums, counts = self.sums.tolist(), self.counts.tolist()
        for m, totals, updates in zip(self.encoders, sums, counts, strict=True):
            for name, total, count in zip(BY_UPDATE, totals, updates, strict=True):
                if count:
                    mean = total if name == "fisher_trace" else total / count
                    found.setdefault(name, {})[m] = mean
        if self.since_start:
            found["conditional_speed"] = self._conditional_speeds()
        self._begin()
        return found

    def _conditional_speeds(self) -> dict[str, Number]:
        """Not a number where a branch or its bypass has not learned yet."""
        bypass, main = (torch.stack([*self.since_start[k].values()]) for k in ("bypass", "main"))
        speeds = torch.where((bypass > 0) & (main > 0), conditional_speeds(bypass, main), torch.nan)
        return dict(zip(self.encoders, speeds.tolist(), strict=True))


def _main(
    model: Multimodal, modality: str, bypass: Iterable[Sequence[nn.Parameter]]
) -> list[nn.Parameter]:
    """A modality's encoder and its branch of the fusion, but for what others reach it through."""
    inside = {id(p) for part in bypass for p in part}
    own = (*model.encoder_parameters(modality), *model.branch_parameters(modality))
    return [p for p in own if id(p) not in inside]


# ── by epoch ────────────────────────────────────────────────────────────────────────────────────


def _rows(balancer: Balancer, output: Output, batch: Batch) -> dict[str, Any]:
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


def _answered(task: Task, rows: Mapping[str, Any]) -> Found:
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


def _encoded(task: Task, rows: Mapping[str, Any]) -> Found:
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
