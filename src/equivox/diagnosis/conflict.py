"""Conflict: whether the joint loss moves an encoder where its own modality would have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.arguments import number
from equivox.diagnosis.metric import Estimate, estimate
from equivox.diagnosis.shares import share
from equivox.functional.gradients import flat_dot, flat_norm
from equivox.method import Batch
from equivox.model import evaluating
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.model import Multimodal


@dataclass(frozen=True)
class Agreement:
    """How the gradients of a modality's own loss and of the joint loss lie to each other.

    Attributes: `cosine` between them, mean over the batches; `share` of the batches in conflict,
    with a cosine below zero; `ratio`, |joint| / |own|, geometric mean. Intervals are over the
    batches; NaN where a gradient was zero in all of them.
    """

    cosine: Estimate
    share: Estimate
    ratio: Estimate

    def to_json(self) -> dict[str, Any]:
        """The agreement in plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Conflict:
    """Agreement or conflict of gradients in every encoder.

    Attributes: `encoders`, by modality; `groups`, by modality and the name of a part of its
    encoder, in order; `own_heads`, whether a modality's own loss is that of its own head, or else
    of its share of the fused logits; `batches`, how many were looked at.
    """

    encoders: Mapping[str, Agreement]
    groups: Mapping[str, Mapping[str, Agreement]]
    own_heads: bool
    batches: int

    def to_json(self) -> dict[str, Any]:
        """The conflict in plain values."""
        return asdict(self)


def conflict(balancer: Balancer, loader: Iterable[Any], batches: int = 20) -> Conflict:
    """The cosine between each modality's own and the joint gradient, by encoder and layer group.

    Both losses are the task's, of the same forward, differentiated by the weights of the modality's
    encoder, but for weights that encoders share. Layer groups are the encoder's children, those of
    the only child where there is but one; weights of the encoder itself are the group ".". A batch
    in which one of the two gradients is zero has no cosine and does not count.

    In eval mode, so that BatchNorm's statistics and the random state stay as they are: gradients
    are those of the network that predicts, without dropout, and with the running statistics of
    BatchNorm instead of a batch's own. In training they differ by just that. Weights, `.grad` and
    modes are left as they were.

    :param loader: Batches of the training data, for conflict in training.
    :param batches: The most that are looked at.
    :raises ValueError: For an empty loader, or encoders that are all frozen.

    Source: the conflict of MMPareto (ICML 2024), there between the losses during training.

    >>> from equivox import Classification, Concat, Multimodal
    >>> from equivox.balancer import Balancer
    >>> net = {"a": nn.Linear(3, 4), "b": nn.Linear(5, 4)}
    >>> balancer = Balancer(Multimodal(net, Concat({"a": 4, "b": 4}, 2)), task=Classification(2))
    >>> batch = {"a": torch.randn(6, 3), "b": torch.randn(6, 5)}, torch.tensor([0, 1, 0, 1, 0, 1])
    >>> found = conflict(balancer, [batch])
    >>> found.batches, list(found.groups["a"])
    (1, ['.'])
    """
    number("batches", batches, least=1)
    groups = _groups(balancer.model)
    if not groups:
        raise ValueError(
            "Conflict is between gradients of encoders. Found no encoder with weights that learn. "
            "Set `requires_grad_(True)`."
        )
    device = next(balancer.parameters()).device
    rows: dict[tuple[str, str], list[Tensor]] = {}
    count = 0
    with preserved_random_state(loader), torch.enable_grad(), evaluating(balancer):
        for item in islice(loader, batches):
            count += 1
            for key, row in _compared(balancer, Batch.of(item).to(device), groups):
                rows.setdefault(key, []).append(row)
    if not count:
        raise ValueError("Conflict is measured on batches. Found an empty loader.")
    found = {key: _agreement(torch.stack(x).cpu()) for key, x in rows.items()}
    return Conflict(
        {m: found[m, ""] for m in groups if (m, "") in found},
        {m: {g: found[m, g] for g in by} for m, by in groups.items() if (m, "") in found},
        balancer.model.heads is not None,
        count,
    )


def _groups(model: Multimodal) -> dict[str, dict[str, list[nn.Parameter]]]:
    """The layer groups of every encoder that learns, without what several encoders share."""
    shared = {id(p) for p in model.shared_parameters()}
    found = {}
    for m in model.modalities:
        parts = layer_groups(model.encoders[m]).items()
        own = {name: [p for p in part if id(p) not in shared] for name, part in parts}
        found[m] = {name: part for name, part in own.items() if part}
    return {m: by for m, by in found.items() if by}


def layer_groups(encoder: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The weights that learn, by the part of the encoder that they are in.

    >>> net = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    >>> {name: len(part) for name, part in layer_groups(net).items()}
    {'0.0': 2, '0.2': 2}
    """
    prefix = ""
    own, parts = _divided(encoder)
    while not own and len(parts) == 1:
        ((name, encoder),) = parts.items()
        prefix += f"{name}."
        own, parts = _divided(encoder)
    groups = {prefix + name: _learning(part.parameters()) for name, part in parts.items()}
    return ({prefix[:-1] or ".": own} if own else {}) | groups


def _divided(module: nn.Module) -> tuple[list[nn.Parameter], dict[str, nn.Module]]:
    """Its own weights that learn, and the children that have some."""
    parts = {n: part for n, part in module.named_children() if _learning(part.parameters())}
    return _learning(module.parameters(recurse=False)), parts


def _learning(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [p for p in parameters if p.requires_grad]


def _compared(
    balancer: Balancer, batch: Batch, groups: Mapping[str, Mapping[str, Sequence[nn.Parameter]]]
) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """By modality and group, "" for all of the encoder: (2,), the cosine and the ratio of norms."""
    output = balancer.model(batch.inputs)
    joint = balancer.task.loss(output.logits, batch.target)
    for m, logits in output.unimodal.items():
        if m not in groups:
            continue
        weights = list({id(p): p for part in groups[m].values() for p in part}.values())
        own = balancer.task.loss(logits, batch.target)
        pairs = zip(_gradients(joint, weights), _gradients(own, weights), strict=True)
        by_weight = dict(zip(map(id, weights), pairs, strict=True))
        for name, part in {"": weights, **groups[m]}.items():
            yield (m, name), _cosine_and_ratio([by_weight[id(p)] for p in part])


def _gradients(loss: Tensor, weights: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    if not loss.requires_grad:
        return tuple(torch.zeros_like(p) for p in weights)
    return torch.autograd.grad(
        loss, weights, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def _cosine_and_ratio(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Not numbers where one of the gradients is zero."""
    joint, own = [a for a, _ in pairs], [b for _, b in pairs]
    size, other = flat_norm(joint), flat_norm(own)
    # One division after the other: the product of two small norms would be zero.
    cosine = (flat_dot(joint, own) / size / other).clamp(-1, 1)
    return torch.stack([cosine, torch.where(size > 0, size / other, torch.nan)])


def _agreement(rows: Tensor) -> Agreement:
    """Of (batches, 2) cosines and ratios."""
    kept = rows[rows.isfinite().all(1)].double()
    cosine, ratio = kept.unbind(1)
    sizes = estimate(ratio.log())
    geometric = torch.tensor([sizes.value, sizes.low, sizes.high]).exp().tolist()
    return Agreement(estimate(cosine), share(cosine < 0), Estimate(*geometric))
