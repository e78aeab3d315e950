"""`diagnose`: all measurements of a trained network, the verdict, and what to do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.arguments import number
from equivox.diagnosis.answers import BLANKINGS, Answers, gather
from equivox.diagnosis.calibration import Calibration, calibration
from equivox.diagnosis.conflict import Conflict, conflict
from equivox.diagnosis.contribution import Contribution, contribution
from equivox.diagnosis.data_checks import Finding, data_checks
from equivox.diagnosis.headroom import Headroom, headroom
from equivox.diagnosis.hurt import Hurt, hurt
from equivox.diagnosis.loaders import SPLITS, Loaders, checked
from equivox.diagnosis.metric import value
from equivox.diagnosis.prescription import Advice, prescribe
from equivox.diagnosis.probes import Probe, Split, encoded, probes
from equivox.diagnosis.reference import (
    Optimizer,
    Reference,
    only,
    optimizer_like,
    renewed,
    trained_alone,
)
from equivox.diagnosis.robustness import Robustness, robustness
from equivox.diagnosis.use import Route, Use, routing, use, use_in_late_fusion
from equivox.diagnosis.verdict import Evidence, Verdict, verdict
from equivox.model import Multimodal
from equivox.randomness import preserved_random_state
from equivox.task import Dense

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.task import Task

USUAL = 15
"""So many epochs are about what a modality needs alone."""

Told = Callable[[str, float], None]
"""Is told what is measured now, and the share of the work that is done."""


@dataclass(frozen=True)
class Diagnosis:
    """What was measured of a network, what it means, and what to do.

    Each attribute is described where its class is; `dynamics` is there where a recorder was given,
    and what a task does not have (routing of a regression, probes of dense prediction) is empty.
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
    dynamics: Any = None
    receipt: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The diagnosis in plain values; what could not be measured is None."""
        facts = {f.name: getattr(self, f.name) for f in fields(self)}
        facts["data"] = [each.to_json() for each in self.data]
        facts["routing"] = [each.to_json() for each in self.routing]
        plain: dict[str, Any] = _plain(facts)
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
    dynamics: Any = None,
    receipt: Mapping[str, Any] | None = None,
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
        optimizer: builds the optimizer of the references; by default one like the balancer's.
        epochs: the most that a reference is trained; it stops when it gets no better.
        dynamics: what a recorder noted in training.
        receipt: facts to keep with the diagnosis: configuration, seeds, command.
        told: is told of the progress.

    The subject and the random state are left as they were. Raises ValueError or TypeError for what
    does not belong together: the model, its task, the loaders, `encoders` or `references`.
    """
    balancer = _balancer(subject, task)
    number("epochs", epochs, least=1)
    for name, given in (("encoders", encoders), ("references", references)):
        _check_modalities(name, given, balancer)
    tell = told or (lambda *_: None)
    tell("the network", 0.0)
    parts = checked(loaders, balancer)
    answers = gather(balancer, parts["test"], seed)
    _check_finite(answers)
    if references is None:
        make = optimizer or optimizer_like(balancer.optimizer)
        fresh = _fresh(balancer, encoders, seed)
        references = dict(_references(balancer, fresh, parts, make, epochs, seed, tell))
    tell("the modalities", 0.6)
    alone = {m: r.answers(only(parts["test"], m)) for m, r in references.items()}
    _check_order(alone, answers)
    said = {m: rows["logits"] for m, rows in alone.items()}
    head = headroom(answers, said, _best(references, parts["validation"]))
    probed = _probes(balancer, parts["train"], answers, references, alone)
    own, late = use(answers), use_in_late_fusion(balancer.task, answers.target, said)
    tell("the data", 0.7)
    checks = data_checks(
        balancer,
        *(loaders[split] for split in SPLITS),
        optimizer=balancer.optimizer,
        alone=head.alone,
        chance=head.chance,
    )
    faults = [check.what for check in checks if check.severity == "fault"]
    decided = verdict(Evidence(len(answers.index), head, probed, own, late, faults))
    tell("robustness", 0.8)
    suspect = decided.suspect
    found = Diagnosis(
        task=repr(balancer.task),
        modalities=answers.modalities,
        samples={split: part.kept for split, part in parts.items() if part.kept},
        verdict=decided,
        headroom=head,
        contributions={how: contribution(answers, how) for how in BLANKINGS},
        use=own,
        late_use=late,
        routing=routing(answers, said),
        probes=probed,
        conflict=_conflict(balancer, parts["train"]),
        robustness=robustness(balancer, parts["test"], answers, seed),
        calibration=calibration(answers),
        hurt=hurt(answers, said, suspect),
        data=tuple(checks),
        epochs_alone={m: (r.epochs, r.converged) for m, r in references.items()},
        prescription=prescribe(decided, balancer),
        dynamics=dynamics,
        receipt=dict(receipt or {}) | _versions(),
    )
    tell("done", 1.0)
    return found


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


def _fresh(
    balancer: Balancer, encoders: Mapping[str, nn.Module] | None, seed: int
) -> Mapping[str, nn.Module]:
    """The encoders to be trained alone. A network that is frozen as a whole was so afterwards."""
    if encoders is not None:
        return copy.deepcopy(dict(encoders))
    own = {m: balancer.model.encoders[m] for m in balancer.model.modalities}
    if not any(p.requires_grad for p in balancer.model.parameters()):
        own = {m: copy.deepcopy(e).requires_grad_(True) for m, e in own.items()}
    return {m: renewed(e, seed) for m, e in own.items()}


def _conflict(balancer: Balancer, train: Iterable[Any]) -> Conflict | None:
    """None where no encoder learns, so that there is no gradient."""
    learns = any(p.requires_grad for p in balancer.model.encoders.parameters())
    return conflict(balancer, train) if learns else None


def _references(
    balancer: Balancer,
    encoders: Mapping[str, nn.Module],
    parts: Loaders,
    optimizer: Optimizer,
    epochs: int,
    seed: int,
    tell: Told,
) -> Iterator[tuple[str, Reference]]:
    width = 0.5 / len(encoders)
    for count, modality in enumerate(balancer.model.modalities):
        begun = 0.1 + count * width

        def made(epochs: int, modality: str = modality, begun: float = begun) -> None:
            share = epochs / (epochs + USUAL)  # when it gets no better is not known beforehand
            tell(f"{modality} alone, epoch {epochs}", begun + width * share)

        tell(f"{modality} alone", begun)
        yield (
            modality,
            trained_alone(
                encoders[modality],
                modality,
                balancer,
                parts["train"],
                parts["validation"],
                optimizer=optimizer,
                epochs=epochs,
                seed=seed,
                told=made,
            ),
        )


def _best(references: Mapping[str, Reference], validation: Iterable[Any]) -> str:
    """The modality that is the best alone on the validation data."""
    worth = {}
    for modality, reference in references.items():
        rows = reference.answers(only(validation, modality))
        worth[modality] = value(reference.balancer.task, rows["logits"], rows["target"])
    return max(worth, key=lambda m: worth[m])


def _probes(
    balancer: Balancer,
    train: Iterable[Any],
    answers: Answers,
    references: Mapping[str, Reference],
    alone: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, Probe]:
    """Each encoder's probe in the network and alone; none for dense prediction."""
    if isinstance(balancer.task, Dense):
        return {}
    fit, joint, single = encoded(balancer, train), {}, {}
    for m, reference in references.items():
        joint[m] = fit[m], Split(answers.features[m], answers.target)
        own = encoded(reference.balancer, only(train, m))[m]
        single[m] = own, Split(alone[m]["features"], answers.target)
    return probes(balancer.task, joint, single)


def _check_order(alone: Mapping[str, Mapping[str, Tensor]], answers: Answers) -> None:
    for modality, rows in alone.items():
        if not torch.equal(rows["target"], answers.target):
            raise ValueError(
                "Every pass over the test data should meet the same samples in the same order. "
                f"Found other targets in that of `{modality}`. Let the loader yield "
                "`(inputs, target, index)`, or do not shuffle it."
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
