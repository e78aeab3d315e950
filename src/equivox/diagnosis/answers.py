"""One pass over a loader: what a network says of every sample, whichever modalities it sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.exchange import Kept, differ, joined, lenders
from equivox.diagnosis.loaders import check_whole
from equivox.distributed import gathered, rank
from equivox.features import Features, blanked, leaves, map_tensors, vector
from equivox.functional.shapley import orders, subsets
from equivox.model import Output, evaluating
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.method import Batch
    from equivox.task import Task

Subset = frozenset[str]

BLANKINGS = ("zero", "mean", "shuffle")
"""What stands for a modality that is left out: zeros, the mean feature of all samples, or the
feature of another sample. They disagree, so they are shown side by side."""

MOST_MODALITIES = 8
"""Above, 2^M subsets are too many, and contributions are sampled."""

ORDERS = 32
"""So many orders of the modalities are then drawn: with nine they meet half of the subsets."""


APART = 2**40
"""Between the places of one process and the next: none of them lends to another."""


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
        ring: (samples,) places in the order in which each sample lends its feature to the next.
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
    ring: Tensor | None = None

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
        names = ("target", "index", "logits", "features", "shares", "unlike", "finite", "ring")
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

    The mean and the samples that lend their features are of the whole loader, whatever its order;
    of several processes, of each one's part. For these two the features are kept until the end of
    the pass: up to 1 GiB in memory, and what goes beyond in temporary files.

    :param loader: Batches of `(inputs, target)` or `(inputs, target, index)`.
    :param seed: Of the partners under "shuffle", and of the orders.
    :param blankings: Those of `BLANKINGS` that are asked for.
    :param modalities: Those that are looked at; all by default. The others stay as they are.
    :raises ValueError: For an empty loader, or numbers that are not those of the samples.
    """
    names = tuple(modalities or balancer.model.modalities)
    many = len(names) > MOST_MODALITIES
    drawn = orders(names, ORDERS, torch.Generator().manual_seed(seed)) if many else ()
    every = _met(names, drawn) if many else subsets(names)
    later = [how for how in blankings if how != "zero"]
    with closing(Kept(holds=bool(later))) as kept:
        rows, target = _passed(balancer, loader, every, kept, zero="zero" in blankings)
        _check_numbers(len(rows["whole"]), len(kept))
        ring = kept.ring(torch.Generator().manual_seed(seed))
        lender = lenders(ring)
        lent = _lent(balancer, kept, lender, every, later)
    device, order = rows["row"].device, _order(rows["row"], len(ring))
    lent |= {"unlike": differ(target, lender.to(device)), "ring": ring + rank() * APART}
    rows |= map_tensors(lambda x: gathered(x.to(device))[order], lent)
    whole = {every[-1]: rows["whole"]}
    return Answers(
        balancer.task,
        names,
        rows["target"],
        rows.get("index", torch.arange(len(order))),
        {how: {s: rows[how][_key(s)] for s in every[:-1]} | whole for how in blankings},
        rows["features"],
        rows["shares"],
        rows["unlike"],
        {m: z.isfinite().flatten(1).all(1) for m, z in rows["features"].items()},
        drawn,
        rows["ring"],
    )


def _met(names: Sequence[str], drawn: Sequence[Sequence[str]]) -> tuple[Subset, ...]:
    """The subsets that orders meet, single modalities and all but one; the whole is the last."""
    whole = frozenset(names)
    met = {frozenset(order[:size]) for order in drawn for size in range(len(names) + 1)}
    met |= {frozenset({m}) for m in names} | {whole - {m} for m in names}
    return tuple(sorted(met, key=lambda s: (len(s), [m not in s for m in names])))


def _check_numbers(found: int, samples: int) -> None:
    if 2 * found <= samples:  # samplers may pad with a few copies
        raise ValueError(
            "The index should be the number of the sample in its split. Found "
            f"{found} numbers for {samples} samples. Count over the data set, not in the batch."
        )


def _passed(
    balancer: Balancer, loader: Iterable[Any], every: Sequence[Subset], kept: Kept, zero: bool
) -> tuple[dict[str, Any], Any]:
    """What one pass tells, in the order of the numbers, and the targets in that of the loader.

    The features are kept; `zero` asks for the predictions with zeros.
    """
    targets: list[Any] = []

    def answered(output: Output, batch: Batch) -> dict[str, Any]:
        check_whole(balancer, batch)
        begun = len(kept)
        kept.add(output.features)
        targets.append(batch.target)
        places = torch.arange(begun, len(kept), device=leaves(batch.target)[0].device)
        found: dict[str, Any] = {
            "target": batch.target,
            "features": {m: vector(z) for m, z in output.features.items()},
            "shares": output.split,
            "row": torch.stack([torch.full_like(places, rank()), places], 1),
        }
        if batch.index is not None:
            found["index"] = batch.index
        if zero:
            nothing = {m: blanked(z, False) for m, z in output.features.items()}
            found["zero"] = _blanked(balancer, output.features, every, nothing)
        return found | {"whole": balancer.method.predict(output)}

    return balancer.collect(loader, answered), joined(targets)


def _order(rows: Tensor, count: int) -> Tensor:
    """Where the rows, which are numbered by process, are among those of all processes."""
    counts = gathered(torch.tensor([count], device=rows.device))
    return (counts.cumsum(0) - counts)[rows[:, 0]] + rows[:, 1]


def _lent(
    balancer: Balancer, kept: Kept, lender: Tensor, every: Sequence[Subset], how: Sequence[str]
) -> dict[str, Any]:
    """The predictions with the mean, and with the features that other samples lend."""
    if not how:
        return {}
    device = next(balancer.parameters()).device

    def said(*pair: Features) -> dict[str, Tensor]:
        own, by = map_tensors(lambda x: x.to(device), pair)
        return _blanked(balancer, own, every, by)

    found: list[dict[str, dict[str, Tensor]]] = []
    with torch.no_grad(), preserved_random_state(), evaluating(balancer):
        for batch, places, mean in kept.parts():
            found.append({})
            if "mean" in how:
                filled = {m: blanked(z, False, mean[m]) for m, z in batch.items()}
                found[-1]["mean"] = said(batch, filled)
            if "shuffle" in how:
                found[-1]["shuffle"] = said(*kept.lent(batch, lender[places]))
    return joined(found)


def _blanked(
    balancer: Balancer, features: Features, every: Sequence[Subset], by: Features
) -> dict[str, Tensor]:
    """The prediction for every subset but the whole, others being replaced by these features."""
    *fewer, whole = every
    others = frozenset(balancer.model.modalities) - whole

    def seen(subset: Subset) -> Features:
        return {m: z if m in subset | others else by[m] for m, z in features.items()}

    return {_key(s): predicted(balancer, seen(s)) for s in fewer}


def predicted(balancer: Balancer, features: Features) -> Tensor:
    """The method's prediction from features."""
    output = Output(balancer.model, features)
    output.logits, output.extra = balancer.model.fused(features)
    return balancer.method.predict(output)


def _key(subset: Subset) -> str:
    return "keep " + " ".join(sorted(subset))
