"""Each modality trained alone, to its own convergence: what its encoder could have learned."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from equivox.arguments import number
from equivox.diagnosis.loaders import Reading
from equivox.diagnosis.metric import value
from equivox.features import leaves, vector
from equivox.fusion import Concat
from equivox.method import Batch
from equivox.model import Multimodal
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Reference:
    """One modality's model trained alone.

    Attributes: `balancer` of one encoder and one linear layer, with the weights of its best epoch
    on the validation data; `epochs`, how many were made; `converged`, whether it had stopped to get
    better before they ran out; `curve`, the usual metric on the validation data after each.
    """

    balancer: Balancer
    epochs: int
    converged: bool
    curve: tuple[float, ...] = ()

    def answers(self, loader: Iterable[Any]) -> dict[str, Tensor]:
        """Its "logits" and pooled "features" (samples, …), and the "target", of every sample."""
        method = self.balancer.method
        rows: dict[str, Tensor] = self.balancer.collect(
            loader,
            lambda o, b: {
                "logits": method.predict(o),
                "features": vector(next(iter(o.features.values()))),
                "target": b.target,
            },
        )
        return rows


def trained_alone(
    encoder: nn.Module,
    modality: str,
    balancer: Balancer,
    train: Iterable[Any],
    validation: Iterable[Any],
    *,
    optimizer: Optimizer,
    epochs: int = 100,
    patience: int = 5,
    seed: int = 0,
    told: Callable[[int], None] | None = None,
) -> Reference:
    """Train an encoder with one linear layer until it gets no better on the validation data.

    :param encoder: Fresh, of the architecture that the joint network has; see `renewed`.
    :param balancer: The joint network's, for the task and the sizes.
    :param optimizer: Builds the optimizer, as that of the joint training.
    :param epochs: The most that are made.
    :param patience: How many epochs without an improvement, of the metric or of the loss, end it.
    :param told: Is told the number of epochs that are made, after each.
    :raises FloatingPointError: For a loss that is not finite.
    """
    from equivox.balancer import Balancer

    number("epochs", epochs, least=1)
    number("patience", patience, least=1)
    model = balancer.model
    model.require("widths", "outputs")
    device = next(model.parameters()).device
    with preserved_random_state(train), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = getattr(model.fusion, "pool", True)
        fusion = Concat({modality: model.widths[modality]}, model.outputs or 1, pool=pool)
        single = Multimodal({modality: encoder}, fusion)
        alone = Balancer(single, task=balancer.task, clip=balancer.clip).to(device)
        try:
            fit = _Fit(alone, modality, optimizer, told or (lambda _: None))
            curve, converged = fit(train, validation, epochs, patience)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"`{modality}` could not be trained alone. {error} Pass `optimizer=` with such "
                "settings, or `references=`."
            ) from error
    return Reference(alone, len(curve), converged, curve)


@dataclass(frozen=True)
class _Fit:
    """A training of one modality that ends with the weights of its best epoch."""

    alone: Balancer
    modality: str
    optimizer: Optimizer
    told: Callable[[int], None]

    def __call__(
        self, train: Iterable[Any], validation: Iterable[Any], epochs: int, patience: int
    ) -> tuple[tuple[float, ...], bool]:
        """The metric after every epoch, and whether it stopped by itself."""
        model = self.alone.model
        steps = self.alone.attach(self.optimizer(self.alone.parameters()))
        best, lowest, since = -math.inf, math.inf, 0
        state = copy.deepcopy(model.state_dict())
        curve: list[float] = []
        while len(curve) < epochs and since < patience:
            _epoch(self.alone, self.modality, train, steps)
            metric, loss = _held_out(self.alone, self.modality, validation)
            curve.append(metric)
            # The loss breaks ties, and is all there is where the metric is undefined.
            worth = metric - 1e-3 * loss if math.isfinite(metric) else -loss
            # A metric of few samples dips while the loss shows that it still learns.
            since = 0 if worth > best or loss < lowest else since + 1
            lowest = min(lowest, loss)
            if worth > best:
                best, state = worth, copy.deepcopy(model.state_dict())
            self.told(len(curve))
        model.load_state_dict(state)
        return tuple(curve), since >= patience


def _epoch(
    alone: Balancer, modality: str, train: Iterable[Any], steps: torch.optim.Optimizer
) -> None:
    alone.train()
    device = next(alone.parameters()).device
    largest = 1
    for item in only(train, modality):
        batch = Batch.of(item).to(device)
        count = len(leaves(batch.target)[0])
        largest = max(largest, count)
        if count == 1 < largest:  # what is left at the end; BatchNorm cannot train on it
            continue
        try:
            alone(batch.inputs, batch.target).backward()
        except ValueError as error:
            if count > 1:
                raise
            raise ValueError(
                "BatchNorm cannot learn from one value a channel. Found batches of one sample in "
                "the train data. Let the loader yield larger ones."
            ) from error
        steps.step()
        steps.zero_grad()


def _held_out(alone: Balancer, modality: str, validation: Iterable[Any]) -> tuple[float, float]:
    """The usual metric and the loss on the validation data."""
    task = alone.task
    rows = alone.collect(
        only(validation, modality), lambda o, b: {"logits": o.logits, "target": b.target}
    )
    logits, target = rows["logits"], rows["target"]
    return value(task, logits, target), float(task.loss(logits, target))


class only(Reading):
    """A loader's batches with one modality alone."""

    def __init__(self, loader: Iterable[Any], modality: str) -> None:
        super().__init__(loader)
        self.modality = modality

    def __iter__(self) -> Iterator[Any]:
        for item in self.loader:
            batch = Batch.of(item).only(self.modality)
            if "present" in batch.inputs:
                present = batch.inputs["present"]
                mine = {m: there for m, there in present.items() if m == self.modality}
                batch = batch.with_(inputs={**batch.inputs, "present": mine})
            yield batch.items()


def renewed(encoder: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with new initial weights, by `reset_parameters` of its parts.

    Parts that are frozen stay as they are: pre-trained ones do not learn alone either.

    :raises ValueError: For an encoder with weights that no part knows how to draw anew.
    """
    fresh = copy.deepcopy(encoder)
    drawn: dict[str, bool] = {}
    for draw in (seed + 1, seed):  # the first draw may be the one that the encoder still has
        before = {name: p.detach().clone() for name, p in fresh.named_parameters()}
        _reset(fresh, draw)
        for name, p in fresh.named_parameters():
            drawn[name] = drawn.get(name, not p.requires_grad) or _drawn(before[name], p)
    left = [name for name, known in drawn.items() if not known]
    if left:
        raise ValueError(
            "A reference trains an encoder anew, from fresh weights. Found parameters that no "
            f"`reset_parameters` draws: {left[:5]}. Pass `encoders=`, fresh ones by modality."
        )
    return fresh


def _reset(encoder: nn.Module, seed: int) -> None:
    """Draw the weights that learn, where a part can; torch's attention hides how it does."""
    frozen = [(p, p.detach().clone()) for p in encoder.parameters() if not p.requires_grad]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for part in encoder.modules():
            reset = getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))
            fixed = [not p.requires_grad for p in part.parameters()]
            serves = bool(fixed) and all(fixed)
            if reset and not serves and not is_parametrized(part):  # would draw a passing product
                reset()
        for p, kept in frozen:
            p.copy_(kept)


def _drawn(before: Tensor, now: Tensor) -> bool:
    """Whether weights are others now, or all equal, as biases and scales begin."""
    return not torch.equal(before, now) or bool(now.amin() == now.amax())


def optimizer_like(
    optimizer: torch.optim.Optimizer | None, encoder: nn.Module | None = None
) -> Optimizer:
    """A builder of optimizers with the settings of this one; Adam where there is none.

    The rate is that before a schedule began.

    :param encoder: The settings are those of the group that holds most of its weights, and of the
        first group where none holds any.
    """
    if optimizer is None:
        return lambda parameters: torch.optim.Adam(parameters, lr=1e-3)
    kind: Any = type(optimizer)
    known = inspect.signature(kind).parameters
    group = _group(optimizer, encoder)
    settings = {name: group.get(name, x) for name, x in optimizer.defaults.items() if name in known}
    settings["lr"] = group.get("initial_lr", _rate(optimizer, group))
    return lambda parameters: kind(parameters, **settings)


def _group(optimizer: torch.optim.Optimizer, encoder: nn.Module | None) -> dict[str, Any]:
    own = {id(p) for p in (encoder.parameters() if encoder is not None else ())}
    groups: list[dict[str, Any]] = optimizer.param_groups
    return max(groups, key=lambda group: sum(p.numel() for p in group["params"] if id(p) in own))


def _rate(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> Any:
    """The group's own rate, or that which all groups began with, whatever they ended with."""
    rates = {float(each["lr"]) for each in optimizer.param_groups}
    return group["lr"] if len(rates) > 1 else optimizer.defaults["lr"]
