"""The modalities alone: their models, what these say of the test data, and say together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.diagnosis.late_fusion import LateFusion, late_fusion
from equivox.diagnosis.metric import Estimate, metric_of
from equivox.diagnosis.probes import Read, Split, encoded, read_both
from equivox.diagnosis.reference import Optimizer, Reference, only, renewed, trained_alone
from equivox.task import Dense

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.diagnosis.answers import Answers
    from equivox.diagnosis.loaders import Loaders
    from equivox.diagnosis.metric import Metric

Told = Callable[[str, float], None]
"""Is told what is measured now, and the share of the work that is done."""

USUAL = 15
"""So many epochs are about what a modality needs alone."""


@dataclass(frozen=True)
class Alone:
    """What the modalities' models say.

    Attributes: `logits` and `features`, by modality, of the test data; `best`, the modality that is
    best on the validation data; `late`, the late fusion that is fitted there.
    """

    logits: Mapping[str, Tensor]
    features: Mapping[str, Tensor]
    best: str
    late: LateFusion


def fresh(
    balancer: Balancer,
    modalities: Iterable[str],
    encoders: Mapping[str, nn.Module] | None,
    seed: int,
) -> dict[str, nn.Module]:
    """The encoders to be trained alone. A network that is frozen as a whole was so afterwards."""
    if encoders is not None:
        return {m: copy.deepcopy(encoders[m]) for m in modalities}
    own = {m: balancer.model.encoders[m] for m in modalities}
    if not any(p.requires_grad for p in balancer.model.parameters()):
        own = {m: copy.deepcopy(e).requires_grad_(True) for m, e in own.items()}
    return {m: renewed(e, seed) for m, e in own.items()}


def trained(
    balancer: Balancer,
    encoders: Mapping[str, nn.Module],
    parts: Loaders,
    optimizers: Mapping[str, Optimizer],
    epochs: int,
    seed: int,
    tell: Told,
) -> Iterator[tuple[str, Reference]]:
    """Each modality's reference, one after another; they take half of a diagnosis's progress."""
    width = 0.5 / len(encoders)
    for count, modality in enumerate(encoders):
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
                optimizer=optimizers[modality],
                epochs=epochs,
                seed=seed,
                told=made,
            ),
        )


def asked(
    references: Mapping[str, Reference], parts: Loaders, answers: Answers, metric: Metric
) -> Alone:
    """What the references say of the test data.

    :raises ValueError: Where they do not meet the samples of the answers in their order.
    """
    test = {m: r.answers(only(parts["test"], m)) for m, r in references.items()}
    _check_order(test, answers)
    held = {m: r.answers(only(parts["validation"], m)) for m, r in references.items()}
    worth = {m: metric.value(rows["logits"], rows["target"]) for m, rows in held.items()}
    target = next(iter(held.values()))["target"]
    return Alone(
        {m: rows["logits"] for m, rows in test.items()},
        {m: rows["features"] for m, rows in test.items()},
        max(worth, key=lambda m: worth[m]),
        late_fusion(answers.task, {m: rows["logits"] for m, rows in held.items()}, target),
    )


def _check_order(test: Mapping[str, Mapping[str, Tensor]], answers: Answers) -> None:
    for modality, rows in test.items():
        if not torch.equal(rows["target"], answers.target):
            raise ValueError(
                "Every pass over the test data should meet the same samples in the same order. "
                f"Found other targets in that of `{modality}`. Let the loader yield "
                "`(inputs, target, index)`, or do not shuffle it."
            )


def read(
    balancer: Balancer,
    train: Iterable[Any],
    answers: Answers,
    references: Mapping[str, Reference],
    alone: Alone,
) -> Read:
    """What is read from each encoder in the network and alone; nothing for dense prediction."""
    if isinstance(balancer.task, Dense):
        return {}
    fit, joint, single = encoded(balancer, train), {}, {}
    for m, reference in references.items():
        joint[m] = fit[m], Split(answers.features[m], answers.target)
        own = encoded(reference.balancer, only(train, m))[m]
        single[m] = own, Split(alone.features[m], answers.target)
    return read_both(balancer.task, joint, single)


def ahead(
    balancer: Balancer, train: Iterable[Any], references: Mapping[str, Reference]
) -> dict[str, Estimate]:
    """What each modality's model is better by than the network on the training data.

    By the usual metric, sample by sample where the loader yields an index. Nothing for dense
    prediction, as of `read`.
    """
    task, method = balancer.task, balancer.method
    if isinstance(task, Dense):
        return {}
    rows = balancer.collect(train, lambda o, b: {"logits": method.predict(o), "target": b.target})
    usual = metric_of(task)
    own = usual.parts(rows["logits"], rows["target"])
    single = {m: r.answers(only(train, m)) for m, r in references.items()}
    parts = {m: usual.parts(x["logits"], x["target"]) for m, x in single.items()}
    return {m: usual.estimate(x - own) for m, x in parts.items()}
