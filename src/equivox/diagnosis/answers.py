"""One pass over a loader: what a network says of every sample, whichever modalities it sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.loaders import check_whole
from equivox.features import Features, leaves, map_tensors, values, vector
from equivox.functional.shapley import orders, subsets
from equivox.model import Output

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.method import Batch
    from equivox.task import Task

Subset = frozenset[str]

BLANKINGS = ("zero", "mean", "shuffle")
"""What stands for a modality that is left out: zeros, the batch's mean feature, or the feature of
another sample of the batch. They disagree, so they are shown side by side."""

MOST_MODALITIES = 8
"""Above, 2^M subsets are too many, and contributions are sampled."""

ORDERS = 32
"""So many orders of the modalities are then drawn: with nine they meet half of the subsets."""


@dataclass(frozen=True)
class Answers:
    """What a network says of every sample.

    Attributes:
        task, modalities: of the network, but for modalities that are blank throughout.
        target: (samples, …).
        index: (samples,) numbers of the samples, as the loader gives them or counted.
        logits: by blanking and subset of the modalities, (samples, outputs, …): the prediction with
            the other modalities blanked. Whole under every blanking where nothing is left out. All
            subsets or, where `orders` are drawn, those that they meet, single modalities, and all
            but one.
        features: (samples, width) pooled features of each encoder.
        shares: each modality's share of the fused logits, as `Output.split`.
        unlike: (samples,) whether the sample that lent its feature under "shuffle" has another
            target.
        finite: (samples,) by modality, whether the features are all finite.
        orders: in which modalities enter; none for up to `MOST_MODALITIES`.
    """

    task: Task
    modalities: tuple[str, ...]
    target: Tensor
    index: Tensor
    logits: Mapping[str, Mapping[Subset, Tensor]]
    features: Mapping[str, Tensor]
    shares: Mapping[str, Tensor]
    unlike: Tensor
    finite: Mapping[str, Tensor]
    orders: tuple[tuple[str, ...], ...] = ()

    @property
    def whole(self) -> Tensor:
        """The prediction with all modalities."""
        return next(iter(self.logits.values()))[frozenset(self.modalities)]

    def without(self, modality: str, blanking: str = "zero") -> Tensor:
        """The prediction with one modality blanked."""
        return self.logits[blanking][frozenset(self.modalities) - {modality}]

    def only(self, modality: str, blanking: str = "zero") -> Tensor:
        """The prediction with all other modalities blanked."""
        return self.logits[blanking][frozenset({modality})]

    def rows(self, chosen: Tensor) -> Answers:
        """The answers for some samples, by a mask or by their positions."""
        names = ("target", "index", "logits", "features", "shares", "unlike", "finite")
        parts = {name: getattr(self, name) for name in names}
        return replace(self, **map_tensors(lambda x: x[chosen], parts))


def gather(
    balancer: Balancer,
    loader: Iterable[Any],
    seed: int = 0,
    blankings: Sequence[str] = BLANKINGS,
    modalities: Sequence[str] | None = None,
) -> Answers:
    """Run the encoders once over a loader, and the fusion for every subset of the modalities.

    Of more than eight modalities, for the subsets that `ORDERS` random orders meet. In eval mode
    and without gradients, with the method's own prediction. Samples whose features are not finite
    are kept and flagged.

    :param loader: Batches of `(inputs, target)` or `(inputs, target, index)`, of two samples or
        more.
    :param seed: Of the partners under "shuffle", and of the orders.
    :param blankings: Those of `BLANKINGS` that are asked for.
    :param modalities: Those that are looked at; all by default. The others stay as they are.
    :raises ValueError: For an empty loader, batches of one sample, or numbers that are not those of
        the samples.
    """
    names = tuple(modalities or balancer.model.modalities)
    many = len(names) > MOST_MODALITIES
    drawn = orders(names, ORDERS, torch.Generator().manual_seed(seed)) if many else ()
    every = _met(names, drawn) if many else subsets(names)
    generator = torch.Generator().manual_seed(seed)
    sizes: list[int] = []

    def answered(output: Output, batch: Batch) -> dict[str, Any]:
        check_whole(balancer, batch)
        sizes.append(len(leaves(batch.target)[0]))
        return _answered(balancer, output, batch, generator, blankings, every)

    rows = balancer.collect(loader, answered)
    _check_sizes(sizes, len(rows["unlike"]))
    logits = {how: {s: rows[how][_key(s)] for s in every} for how in blankings}
    index = rows.get("index", torch.arange(len(rows["unlike"])))
    return Answers(
        balancer.task,
        names,
        rows["target"],
        index,
        logits,
        rows["features"],
        rows["shares"],
        rows["unlike"],
        {m: z.isfinite().flatten(1).all(1) for m, z in rows["features"].items()},
        drawn,
    )


def _met(names: Sequence[str], drawn: Sequence[Sequence[str]]) -> tuple[Subset, ...]:
    """The subsets that orders meet, single modalities and all but one; the whole is the last."""
    whole = frozenset(names)
    met = {frozenset(order[:size]) for order in drawn for size in range(len(names) + 1)}
    met |= {frozenset({m}) for m in names} | {whole - {m} for m in names}
    return tuple(sorted(met, key=lambda s: (len(s), [m not in s for m in names])))


def _check_sizes(sizes: Sequence[int], kept: int) -> None:
    if len(sizes) > 1 and max(sizes) == 1:
        raise ValueError(
            "Modalities are exchanged between the samples of a batch. Found batches of one sample. "
            "Let the loader yield larger ones."
        )
    if 2 * kept <= sum(sizes):  # samplers may pad with a few copies
        raise ValueError(
            "The index should be the number of the sample in its split. Found "
            f"{kept} numbers for {sum(sizes)} samples. Count over the data set, not in the batch."
        )


def _answered(
    balancer: Balancer,
    output: Output,
    batch: Batch,
    generator: torch.Generator,
    blankings: Sequence[str],
    subsets: Sequence[Subset],
) -> dict[str, Any]:
    features = output.features
    partner = partners(len(leaves(features)[0]), generator).to(leaves(features)[0].device)
    lent = {m: map_tensors(lambda x: x[partner], z) for m, z in features.items()}
    found: dict[str, Any] = {
        "target": batch.target,
        "features": {m: vector(z) for m, z in features.items()},
        "shares": output.split,
        "unlike": differ(batch.target, partner),
    }
    if batch.index is not None:
        found["index"] = batch.index
    means = {m: values(z).mean(0, keepdim=True) for m, z in features.items()}
    *fewer, every = subsets
    others = frozenset(balancer.model.modalities) - every
    whole = balancer.method.predict(output)
    for how in blankings:
        found[how] = {
            _key(s): predicted(balancer, _seen(balancer, features, s | others, how, means, lent))
            for s in fewer
        }
        found[how][_key(every)] = whole
    return found


def _seen(
    balancer: Balancer,
    features: Features,
    subset: Subset,
    how: str,
    means: Mapping[str, Tensor],
    lent: Features,
) -> Features:
    """The features, with those outside the subset blanked."""
    if how == "shuffle":
        return {m: z if m in subset else lent[m] for m, z in features.items()}
    zeros = {m: torch.zeros_like(mean) for m, mean in means.items()}
    return balancer.model.blanked(features, subset, zeros if how == "zero" else means)


def predicted(balancer: Balancer, features: Features) -> Tensor:
    """The method's prediction from features."""
    output = Output(balancer.model, features)
    output.logits, output.extra = balancer.model.fused(features)
    return balancer.method.predict(output)


def partners(count: int, generator: torch.Generator) -> Tensor:
    """Another row for every row, at random."""
    order = torch.randperm(count, generator=generator)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def differ(target: Any, partner: Tensor) -> Tensor:
    """(samples,) whether the target of `partner` is another one."""
    tensors = [x.flatten(1) if x.ndim > 1 else x[:, None] for x in leaves(target)]
    return torch.stack([(x != x[partner]).any(1) for x in tensors]).any(0)


def _key(subset: Subset) -> str:
    return "keep " + " ".join(sorted(subset))
