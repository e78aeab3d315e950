"""Each modality trained alone, to its own convergence: what its encoder could have learned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.diagnosis.metric import merits
from equivox.features import vector
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
    better before they ran out.
    """

    balancer: Balancer
    epochs: int
    converged: bool

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
) -> Reference:
    """Train an encoder with one linear layer until it gets no better on the validation data.

    :param encoder: Fresh, of the architecture that the joint network has; see `renewed`.
    :param balancer: The joint network's, for the task and the sizes.
    :param optimizer: Builds the optimizer, as that of the joint training.
    :param epochs: The most that are made.
    :param patience: How many epochs without an improvement end it.
    """
    from equivox.balancer import Balancer

    model = balancer.model
    model.require("widths", "outputs")
    device = next(model.parameters()).device
    with preserved_random_state(train), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = getattr(model.fusion, "pool", True)
        fusion = Concat({modality: model.widths[modality]}, model.outputs or 1, pool=pool)
        alone = Balancer(Multimodal({modality: encoder}, fusion), task=balancer.task).to(device)
        made, converged = _fit(alone, modality, train, validation, optimizer, epochs, patience)
    return Reference(alone, made, converged)


def _fit(
    alone: Balancer,
    modality: str,
    train: Iterable[Any],
    validation: Iterable[Any],
    optimizer: Optimizer,
    epochs: int,
    patience: int,
) -> tuple[int, bool]:
    """Train; how many epochs were made, and whether it stopped by itself."""
    steps = alone.attach(optimizer(alone.parameters()))
    best, since, state = -math.inf, 0, copy.deepcopy(alone.model.state_dict())
    made = 0
    while made < epochs and since < patience:
        _epoch(alone, modality, train, steps)
        made += 1
        worth = _worth(alone, modality, validation)
        since = 0 if worth > best else since + 1
        if worth > best:
            best, state = worth, copy.deepcopy(alone.model.state_dict())
    alone.model.load_state_dict(state)
    return made, since >= patience


def _epoch(
    alone: Balancer, modality: str, train: Iterable[Any], steps: torch.optim.Optimizer
) -> None:
    alone.train()
    device = next(alone.parameters()).device
    for item in train:
        batch = Batch.of(item).to(device)
        if modality not in batch.inputs:
            continue
        alone({modality: batch.inputs[modality]}, batch.target).backward()
        steps.step()
        steps.zero_grad()


def _worth(alone: Balancer, modality: str, validation: Iterable[Any]) -> float:
    """The mean merit on the validation data, minus a little of the loss to break ties."""
    task = alone.task
    rows = alone.collect(
        only(validation, modality), lambda o, b: {"logits": o.logits, "target": b.target}
    )
    worth = float(merits(task, rows["logits"], rows["target"]).mean())
    return worth - 1e-3 * float(task.loss(rows["logits"], rows["target"]))


class only:
    """A loader's batches with one modality alone."""

    def __init__(self, loader: Iterable[Any], modality: str) -> None:
        self.loader = loader
        self.modality = modality

    def __iter__(self) -> Any:
        for item in self.loader:
            batch = Batch.of(item)
            yield batch.with_(inputs={self.modality: batch.inputs[self.modality]}).items()


def renewed(encoder: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with new initial weights, by `reset_parameters` of its parts.

    :raises ValueError: For an encoder with parameters that no part knows how to draw anew.
    """
    fresh = copy.deepcopy(encoder).requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn: set[int] = set()
        for part in fresh.modules():
            if (reset := getattr(part, "reset_parameters", None)) is not None:
                reset()
                drawn |= {id(p) for p in part.parameters()}
    left = [name for name, p in fresh.named_parameters() if id(p) not in drawn]
    if left:
        raise ValueError(
            "A reference trains an encoder anew, from fresh weights. Found parameters that have no "
            f"`reset_parameters`: {left[:5]}. Pass `encoders=`, fresh ones by modality."
        )
    return fresh


def optimizer_like(optimizer: torch.optim.Optimizer | None) -> Optimizer:
    """A builder of optimizers with the settings of this one; Adam where there is none."""
    if optimizer is None:
        return lambda parameters: torch.optim.Adam(parameters, lr=1e-3)
    settings = dict(optimizer.defaults)
    settings["lr"] = optimizer.param_groups[0].get("initial_lr", settings["lr"])
    kind: Any = type(optimizer)
    return lambda parameters: kind(parameters, **settings)


References = Mapping[str, Reference]
