"""Robustness: the metric with a modality missing, and with its inputs disturbed more and more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.answers import BLANKINGS, Answers, predicted
from equivox.diagnosis.exchange import Kept, Lend, joined, lending
from equivox.diagnosis.metric import Estimate, Metric, metric_of
from equivox.diagnosis.tables import deviation
from equivox.features import leaves, map_tensors, map_values, padding
from equivox.method import Batch
from equivox.model import Output
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer

DEVIATIONS = (0.25, 0.5, 1.0, 2.0)
"""Of the Gaussian noise, in standard deviations of a modality's inputs."""

SHARES = (0.1, 0.25, 0.5, 1.0)
"""Of the samples whose input is exchanged, where noise cannot be added."""


@dataclass(frozen=True)
class Curve:
    """The metric against the strength of a disturbance.

    Attributes: `kind`, "noise" or "exchange"; `levels`, standard deviations of the inputs or shares
    of the samples; `metric`, one a level.
    """

    kind: str
    levels: tuple[float, ...]
    metric: tuple[Estimate, ...]


@dataclass(frozen=True)
class Robustness:
    """What becomes of the network when one modality fails.

    Attributes: `whole`, the metric with all modalities as they are; `missing`, without this one, by
    blanking; `disturbed`, with its inputs disturbed.
    """

    whole: Estimate
    missing: Mapping[str, Estimate]
    disturbed: Curve

    def to_json(self) -> dict[str, Any]:
        """The robustness in plain values."""
        return asdict(self)


def robustness(
    balancer: Balancer,
    loader: Iterable[Any],
    answers: Answers,
    seed: int = 0,
    metric: Metric | None = None,
) -> dict[str, Robustness]:
    """How the metric falls with each modality missing, and with its inputs disturbed.

    :param loader: Of the data that the answers were gathered from. It is read twice, and once more
        where inputs are exchanged.
    :param seed: Of the disturbances.
    :param metric: By default the task's usual one.
    """
    metric = metric or metric_of(answers.task)
    whole = _measured(metric, answers.whole, answers.target)
    gone, curves = missing(answers, metric), disturbed(balancer, loader, seed, metric)
    return {m: Robustness(whole, gone[m], curves[m]) for m in answers.modalities}


def missing(answers: Answers, metric: Metric | None = None) -> dict[str, dict[str, Estimate]]:
    """The metric without each modality, by blanking: what stands for it, see `BLANKINGS`."""
    metric, target = metric or metric_of(answers.task), answers.target
    return {
        m: {how: _measured(metric, answers.without(m, how), target) for how in BLANKINGS}
        for m in answers.modalities
    }


def _measured(metric: Metric, logits: Tensor, target: Any) -> Estimate:
    return metric.estimate(metric.parts(logits, target))


def disturbed(
    balancer: Balancer, loader: Iterable[Any], seed: int = 0, metric: Metric | None = None
) -> dict[str, Curve]:
    """The metric with the inputs of one modality at a time disturbed.

    Floating inputs get Gaussian noise of `DEVIATIONS` standard deviations, one for each tensor,
    over its values in the loader that are finite and not padding. Of others, such as tokens, that
    share of `SHARES` of the samples gets the input of another one of the loader; for this they are
    kept, up to 1 GiB in memory and then in temporary files. Stronger levels stretch the same noise
    and exchange more of the same samples. Only the encoder of the disturbed modality is run again.
    """
    metric = metric or metric_of(balancer.task)
    spread = deviations(loader, balancer.model.modalities)
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as stack:
        exchanged = {m: stack.enter_context(closing(Kept())) for m, x in spread.items() if not x}
        if exchanged:
            _keep(loader, exchanged)
        lend = {m: lending(kept, generator) for m, kept in exchanged.items()}

        def variants(modality: str, x: Any) -> dict[float, Any]:
            if modality in lend:
                return _exchanged({modality: x}, lend[modality], generator)
            return _noised(x, spread[modality], generator)

        rows = balancer.collect(loader, lambda o, b: _disturbed(balancer, o, b, spread, variants))
    curves = {}
    for modality, said in rows["logits"].items():
        levels = _levels(spread[modality])
        found = [_measured(metric, said[x], rows["target"]) for x in levels]
        kind = "noise" if spread[modality] else "exchange"
        curves[modality] = Curve(kind, levels, tuple(found))
    return curves


def deviations(loader: Iterable[Any], modalities: Iterable[str]) -> dict[str, list[float]]:
    """The standard deviation of each floating tensor of each modality's inputs, over a loader.

    Over the values that are finite and not padding. Empty for inputs without floating tensors.
    """
    names = list(modalities)
    sums: dict[str, list[Tensor]] = {m: [] for m in names}
    with preserved_random_state(loader):
        for item in loader:
            inputs = Batch.of(item).inputs
            for m in (m for m in names if m in inputs):
                new = _moments(_there(inputs, m))
                sums[m] = [a + b for a, b in zip(sums[m], new, strict=True)] if sums[m] else new
    return {m: [deviation(x) for x in found] for m, found in sums.items()}


def _there(inputs: Mapping[str, Any], modality: str) -> Any:
    """The inputs of the samples that have the modality."""
    present = inputs.get("present", {}).get(modality, True)
    if present is True:
        return inputs[modality]
    return map_tensors(
        lambda x: x[present] if isinstance(present, Tensor) else x[:0], inputs[modality]
    )


def _moments(x: Any) -> list[Tensor]:
    """The number, sum and sum of squares of the values of each floating tensor."""
    floating = _floating(x)
    nothing = padding(x) if floating else None
    found = []
    for leaf in floating:
        steps = leaf
        if nothing is not None and leaf.shape[:2] == nothing.shape:
            steps = leaf[~nothing]
        chosen = steps[steps.isfinite()].double()
        count = torch.tensor(float(chosen.numel()), dtype=torch.float64)
        found.append(torch.stack([count, chosen.sum().cpu(), chosen.square().sum().cpu()]))
    return found


def _levels(spread: list[float]) -> tuple[float, ...]:
    return DEVIATIONS if spread else SHARES


def _disturbed(
    balancer: Balancer,
    output: Output,
    batch: Batch,
    spread: Mapping[str, list[float]],
    variants: Callable[[str, Any], dict[float, Any]],
) -> dict[str, Any]:
    """The logits by modality and level, and the target."""
    said: dict[str, dict[float, Tensor]] = {}
    for m in balancer.model.modalities:
        if m in batch.inputs:
            levels = variants(m, batch.inputs[m])
        else:  # declared absent: nothing to disturb
            levels = dict.fromkeys(_levels(spread[m]))
        said[m] = {x: _again(balancer, output, batch, m, other) for x, other in levels.items()}
    return {"logits": said, "target": batch.target}


def _keep(loader: Iterable[Any], kept: Mapping[str, Kept]) -> None:
    """Keep the inputs of some modalities."""
    with preserved_random_state(loader):
        for item in loader:
            inputs = Batch.of(item).inputs
            for m in kept.keys() & inputs.keys():
                kept[m].add({m: inputs[m]})


def _exchanged(x: dict[str, Any], lend: Lend, generator: torch.Generator) -> dict[float, Any]:
    """The inputs of a modality with more and more of them exchanged."""
    device = leaves(x)[0].device
    both = map_tensors(lambda leaf: leaf.to(device), joined(lend(x)))
    (modality,), count = x, len(leaves(x)[0])
    own, when = torch.arange(count), torch.rand(count, generator=generator)

    def exchanged(share: float) -> Any:
        rows = torch.where(when < share, own + count, own).to(device)
        return map_tensors(lambda leaf: leaf[rows], both[modality])

    return {share: exchanged(share) for share in SHARES}


def _noised(x: Any, spread: list[float], generator: torch.Generator) -> dict[float, Any]:
    """The inputs of a modality with more and more noise."""
    drawn = [
        torch.randn(leaf.shape, generator=generator).to(leaf) * width
        for leaf, width in zip(_floating(x), spread, strict=True)
    ]

    def noised(level: float) -> Any:
        noise = iter(drawn)
        return map_values(lambda leaf: leaf + level * next(noise), x)

    return {level: noised(level) for level in DEVIATIONS}


def _floating(x: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(x) if leaf.is_floating_point()]


def _again(balancer: Balancer, output: Output, batch: Batch, modality: str, x: Any) -> Tensor:
    """The prediction with another input of one modality."""
    features = dict(output.features)
    if x is not None:
        present = {"present": batch.inputs["present"]} if "present" in batch.inputs else {}
        features[modality] = balancer.model.encode({modality: x, **present})[modality]
    return predicted(balancer, features)
