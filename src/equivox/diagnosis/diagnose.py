"""`diagnose`: all measurements of a trained network, the verdict, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.arguments import number
from equivox.diagnosis import alone as single
from equivox.diagnosis.alone import Alone, Told
from equivox.diagnosis.answers import BLANKINGS, Answers, gather
from equivox.diagnosis.calibration import Calibration, calibration
from equivox.diagnosis.conflict import Conflict, conflict
from equivox.diagnosis.contribution import Contribution, contribution
from equivox.diagnosis.data_checks import data_checks
from equivox.diagnosis.dynamics import Dynamics
from equivox.diagnosis.findings import Finding
from equivox.diagnosis.headroom import Headroom, headroom
from equivox.diagnosis.hurt import Hurt, class_names, hurt, varied
from equivox.diagnosis.loaders import SPLITS, Loaders, checked
from equivox.diagnosis.metric import Estimate, Metric, metric_of
from equivox.diagnosis.prescription import Advice, prescribe
from equivox.diagnosis.preview import Preview, previews
from equivox.diagnosis.probes import Probe, Read, probes
from equivox.diagnosis.reference import Optimizer, Reference, optimizer_like
from equivox.diagnosis.robustness import Robustness, robustness
from equivox.diagnosis.use import Route, Use, routing, use, use_in_late_fusion
from equivox.diagnosis.verdict import Evidence, Verdict, verdict
from equivox.model import Multimodal
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.diagnosis.recorder import Recorder
    from equivox.task import Task


@dataclass(frozen=True)
class Diagnosis:
    """What was measured of a network, what it means, and what to do.

    Each attribute is described where its class is; `dynamics` is there where a recorder was given,
    and what a task does not have (routing of a regression, probes of dense prediction) is empty. So
    is what a modality that holds nothing finite does not have. `metric` is that of the headroom,
    the contributions, the probes, the use and the robustness, in words; `ahead`, what each
    modality's model is better by than the network on the training data, is by the usual one.
    """

    task: str
    modalities: tuple[str, ...]
    samples: Mapping[str, int]
    verdict: Verdict
    headroom: Headroom
    contributions: Mapping[str, Contribution]
    use: Mapping[str, Use]
    late_use: Mapping[str, Use]
    routing: Sequence[Route]
    probes: Mapping[str, Probe]
    conflict: Conflict | None
    robustness: Mapping[str, Robustness]
    calibration: Calibration
    hurt: Hurt
    data: Sequence[Finding]
    epochs_alone: Mapping[str, tuple[int, bool]]
    prescription: Sequence[Advice]
    dynamics: Dynamics | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ""
    classes: tuple[str, ...] = ()
    previews: Mapping[int, Mapping[str, Preview]] = field(default_factory=dict)
    ahead: Mapping[str, Estimate] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The diagnosis in plain values; what could not be measured is None."""
        plain: dict[str, Any] = _plain({f.name: getattr(self, f.name) for f in fields(self)})
        return plain

    def save(self, path: str | Path) -> Path:
        """Write the page, and its twin in JSON beside it; the page's path."""
        from equivox.report.diagnosis import save

        return save(self, Path(path))

    def _repr_html_(self) -> str:
        from equivox.report.diagnosis import notebook

        return notebook(self)

    def __str__(self) -> str:
        from equivox.report.diagnosis import text

        return text(self)


@preserved_random_state()
def diagnose(
    subject: Balancer | Multimodal,
    loaders: Loaders,
    *,
    task: Task | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
    references: Mapping[str, Reference] | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 100,
    dynamics: Recorder | Dynamics | None = None,
    receipt: Mapping[str, Any] | None = None,
    metric: str | Metric | None = None,
    classes: Sequence[str] | None = None,
    told: Told | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Find out which modality a trained network neglects, what could be gained, and what to do.

    Arguments:
        subject: a trained balancer, or a model of any training, also one adopted by `from_model`.
        loaders: "train", "validation" and "test", of batches `(inputs, target)` or
            `(inputs, target, index)`; a loader that reshuffles needs the index. Samples that hold
            NaN or infinity are left out, and named under `data`.
        task: of a model; a balancer has its own.
        encoders: fresh encoders by modality, of the architecture in the model, that are trained
            alone, as copies; by default the network's own, whose parts draw their weights anew.
        references: models trained alone already, instead.
        optimizer: builds the optimizer of the references; by default one like the balancer's, with
            the settings of the group that holds the modality's encoder.
        epochs: the most that a reference is trained; it stops when it gets no better.
        dynamics: what a recorder noted in training: the recorder or its `dynamics`.
        receipt: facts to keep with the diagnosis: configuration, seeds, command.
        metric: a name that `known_metrics.metrics_of` lists for the task, or one of your own. The
            verdict is by it where its thresholds, those of an accuracy, apply to it, and else by
            the task's usual metric, which is the default.
        classes: the names of the classes; by default those that the test data set has as `classes`.
        told: is told of the progress.
        seed: of all that is drawn, the order of a loader that shuffles included.

    The subject and the random state are left as they were. Raises ValueError or TypeError for what
    does not belong together: the model, its task, the loaders, `encoders` or `references`.
    """
    torch.manual_seed(seed)  # loaders that shuffle draw from the ambient state
    balancer = _balancer(subject, task)
    shown, usual = metric_of(balancer.task, metric), metric_of(balancer.task)
    number("epochs", epochs, least=1)
    recorded = _recorded(dynamics)
    for name, given in (("encoders", encoders), ("references", references)):
        _check_modalities(name, given, balancer)
    tell = told or (lambda *_: None)
    tell("the network", 0.0)
    parts = checked(loaders, balancer)
    names = class_names(balancer, classes, parts["test"])
    modalities = [m for m in balancer.model.modalities if m not in parts["test"].lost]
    answers = gather(balancer, parts["test"], seed, modalities=modalities)
    _check_finite(answers)
    if references is None:
        own = {m: balancer.model.encoders[m] for m in modalities}
        make = {m: optimizer or optimizer_like(balancer.optimizer, x) for m, x in own.items()}
        fresh = single.fresh(balancer, modalities, encoders, seed)
        references = dict(single.trained(balancer, fresh, parts, make, epochs, seed, tell))
    references = {m: references[m] for m in modalities}
    tell("the modalities", 0.6)
    alone = single.asked(references, parts, answers, shown)
    read = single.read(balancer, parts["train"], answers, references, alone)
    evidence = _evidence(answers, alone, read, shown)
    by = shown if shown.accuracy_like else usual
    judged = evidence if by is shown else _evidence(answers, alone, read, by)
    tell("the data", 0.7)
    checks = data_checks(
        balancer,
        *(loaders[split] for split in SPLITS),
        optimizer=balancer.optimizer,
        alone=judged.headroom.alone,
        chance=judged.headroom.chance,
    )
    faults = [check.what for check in checks if check.severity == "fault"]
    ahead = single.ahead(balancer, parts["train"], references)
    decided = verdict(replace(judged, faults=faults, ahead=ahead))
    tell("contributions", 0.8)
    contributions = {how: contribution(answers, how, shown) for how in BLANKINGS}
    tell("robustness", 0.85)
    fails = robustness(balancer, parts["test"], answers, seed, shown)
    agreement = _conflict(balancer, parts["train"])
    harmed = hurt(answers, alone.logits, decided.suspect)
    found = Diagnosis(
        task=repr(balancer.task),
        modalities=balancer.model.modalities,
        samples={split: part.kept for split, part in parts.items() if part.kept},
        verdict=decided,
        headroom=evidence.headroom,
        contributions=contributions,
        use=evidence.use,
        late_use=evidence.late_use,
        routing=routing(answers, alone.logits),
        probes=evidence.probes,
        conflict=agreement,
        robustness=fails,
        calibration=calibration(answers),
        hurt=harmed,
        data=tuple(checks),
        epochs_alone={m: (r.epochs, r.converged) for m, r in references.items()},
        prescription=prescribe(decided, balancer, agreement, by.room(judged.headroom.joint.value)),
        dynamics=recorded and recorded.with_onset({m: r.curve for m, r in references.items()}),
        receipt=dict(receipt or {}) | _versions(),
        metric=shown.label,
        classes=names,
        previews=previews(parts["test"], [case.index for case in varied(harmed.cases)]),
        ahead=ahead,
    )
    tell("done", 1.0)
    return found


def _evidence(answers: Answers, alone: Alone, read: Read, metric: Metric) -> Evidence:
    """What is measured by a metric, and the verdict is made from."""
    task, target = answers.task, answers.target
    return Evidence(
        samples=len(answers.index),
        headroom=headroom(answers, alone.logits, alone.best, alone.late, metric),
        probes=probes(task, read, target, metric),
        use=use(answers, metric),
        late_use=use_in_late_fusion(task, target, alone.logits, alone.late, metric),
        metric=metric.label,
    )


def _balancer(subject: Balancer | Multimodal, task: Task | None) -> Balancer:
    from equivox.balancer import Balancer

    if isinstance(subject, Balancer):
        balancer = subject
    elif not isinstance(subject, Multimodal):
        raise TypeError(
            f"A diagnosis is of a `Balancer` or a `Multimodal`. Found `{type(subject).__name__}`. "
            "Adopt another network by `Multimodal.from_model`."
        )
    elif task is None:
        raise ValueError(
            "A model does not say what it is trained for. Found no task. "
            "Pass `diagnose(..., task=Classification())`, or the balancer."
        )
    else:
        balancer = Balancer(subject, task=task)
    if len(balancer.model.modalities) < 2:
        raise ValueError(
            "A diagnosis is of the balance between modalities. Found "
            f"{list(balancer.model.modalities)} alone."
        )
    return balancer


def _check_modalities(name: str, given: Mapping[str, Any] | None, balancer: Balancer) -> None:
    if given is not None and set(given) != set(balancer.model.modalities):
        raise ValueError(
            f"`{name}` should be by the modalities {list(balancer.model.modalities)}. Found "
            f"{list(given)}."
        )


def _check_finite(answers: Answers) -> None:
    bad = {m: int((~rows).sum()) for m, rows in answers.finite.items()}
    for modality, count in bad.items():
        if count:
            raise ValueError(
                f"The features of finite inputs should be finite. Found NaN or infinity in those "
                f"of `{modality}` for {count} of {len(answers.index)} test samples. The weights "
                "are not finite, or overflow: train anew with a lower learning rate."
            )


def _conflict(balancer: Balancer, train: Iterable[Any]) -> Conflict | None:
    """None where no encoder learns, so that there is no gradient."""
    learns = any(p.requires_grad for p in balancer.model.encoders.parameters())
    return conflict(balancer, train) if learns else None


def _recorded(dynamics: Any) -> Dynamics | None:
    found = getattr(dynamics, "dynamics", dynamics)
    if found is None or isinstance(found, Dynamics):
        return found
    raise TypeError(
        f"`dynamics` should be a `Recorder`, or its `dynamics`. Found `{type(dynamics).__name__}`."
    )


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {"versions": {name: version(name) for name in ("equivox", "torch")}}


def _plain(value: Any) -> Any:
    """Nested values as JSON has them: dataclasses become objects, and what is not finite None."""
    if hasattr(value, "to_json"):
        return _plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
