"""Small problems on which methods are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from equivox.balancer import Balancer
from equivox.fusion import Attention, Concat
from equivox.method import Method
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression, Task

NAMES = ("audio", "video", "text", "depth")
CLASSES = 3
SAMPLES = 24
BATCH = 8

TASKS: dict[str, Callable[[], Task]] = {
    "Classification": lambda: Classification(CLASSES),
    "MultiLabel": lambda: MultiLabel(CLASSES),
    "Regression": lambda: Regression(1),
    "Dense": lambda: Dense(CLASSES),
}


class Noisy(Dataset[Any]):
    """Samples whose inputs are disturbed anew whenever they are read, from the global generator."""

    def __init__(self, inputs: Mapping[str, Tensor], target: Tensor, noise: float) -> None:
        self.inputs = inputs
        self.target = target
        self.noise = noise

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], Tensor, int]:
        sample = {name: x[i] for name, x in self.inputs.items()}
        if self.noise:
            sample = {name: x + self.noise * torch.randn_like(x) for name, x in sample.items()}
        return sample, self.target[i], i


class Tokens(nn.Module):
    """(batch, time, 6) → tokens (batch, time, width) and a mask of the padding, its last step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(6, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        mask[: len(x) // 2, -1] = True
        return self.layer(x).tanh(), mask


class Plain(nn.Module):
    """A network written without this library, to be adopted."""

    def __init__(self, encoders: Mapping[str, nn.Module], widths: Mapping[str, int]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.head = nn.Linear(sum(widths.values()), CLASSES)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.head(torch.cat([f(inputs[m]) for m, f in self.encoders.items()], dim=-1))


@dataclass(frozen=True)
class Problem:
    """A task, a model and data for it.

    Arguments:
        modalities: how many, up to four.
        task: the name of a task.
        kind: of the features: "vector", "sequence", "dense", or "adopted", vectors in a network
            taken in by `Multimodal.from_model`.
        random: whether there are dropout, augmentation and shuffling.
    """

    modalities: int = 2
    task: str = "Classification"
    kind: str = "vector"
    random: bool = False

    @property
    def widths(self) -> dict[str, int]:
        """Feature widths, all different."""
        return {name: 8 + i for i, name in enumerate(NAMES[: self.modalities])}

    def data(self, samples: int = SAMPLES, seed: int = 0) -> Noisy:
        """Samples of which every modality says something about the target."""
        generator = torch.Generator().manual_seed(seed)
        shape = {"sequence": (5, 6), "dense": (6, 4, 4)}.get(self.kind, (6,))
        label = torch.arange(samples) % CLASSES
        signal = torch.zeros(samples, 6).scatter(1, label[:, None], 2.0)
        signal = signal.view(samples, *[1] * (len(shape) - 1), 6)
        signal = signal.movedim(-1, 1) if self.kind == "dense" else signal
        inputs = {
            name: signal + torch.randn(samples, *shape, generator=generator) for name in self.widths
        }
        return Noisy(inputs, self._target(label), 0.1 if self.random else 0.0)

    def _target(self, label: Tensor) -> Tensor:
        if self.task == "MultiLabel":
            return torch.stack([label == 0, label >= 1, label == 2], 1).long()
        if self.task == "Regression":
            return (label.float() - 1).unsqueeze(1)
        return label.view(-1, 1, 1).expand(-1, 4, 4).clone() if self.task == "Dense" else label

    def loader(self, batch: int = BATCH, order: Sequence[int] | None = None) -> DataLoader[Any]:
        """The training data; shuffled where the problem is random."""
        if order is not None:
            return DataLoader(self.data(), batch_size=batch, sampler=order)
        return DataLoader(self.data(), batch_size=batch, shuffle=self.random)

    def model(self, seed: int = 0) -> Multimodal:
        """A fresh small model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoders = {name: self._encoder(width) for name, width in self.widths.items()}
            if self.kind == "adopted":
                example = next(iter(self.loader()))[0]
                paths = {name: f"encoders.{name}" for name in encoders}
                return Multimodal.from_model(Plain(encoders, self.widths), paths, example)
            return Multimodal(encoders, self._fusion())

    def _encoder(self, width: int) -> nn.Module:
        if self.kind == "sequence":
            return Tokens(width)
        if self.kind == "dense":
            return nn.Sequential(nn.Conv2d(6, width, 3, padding=1), nn.Tanh())
        dropout = [nn.Dropout(0.3)] if self.random else []
        return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), *dropout, nn.Linear(10, width), nn.Tanh())

    def _fusion(self) -> nn.Module:
        outputs = 1 if self.task == "Regression" else CLASSES
        if self.kind == "sequence":
            return Attention(self.widths, outputs, dim=8, heads=2)
        return Concat(self.widths, outputs, pool=self.kind != "dense")

    def balancer(self, method: Method, **options: Any) -> Balancer:
        """A fresh model bound to the method, with held-out data."""
        held_out = DataLoader(self.data(12, seed=1), batch_size=6)
        return Balancer(
            self.model(), method, task=TASKS[self.task](), validation=held_out, **options
        )


def sgd(balancer: Balancer, **options: Any) -> torch.optim.Optimizer:
    """An attached optimizer with momentum and weight decay, which move whatever has a gradient."""
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01} | options
    return balancer.attach(torch.optim.SGD(balancer.parameters(), **options))


def steps(
    balancer: Balancer,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    epochs: int = 1,
    forward: Callable[..., Tensor] | None = None,
) -> Iterator[Tensor]:
    """Train; yields the loss after each update, while its gradients are still there."""
    for _ in range(epochs):
        for batch in balancer.epoch(loader):
            loss = (forward or balancer)(*batch)
            loss.backward()
            optimizer.step()
            yield loss.detach()
            optimizer.zero_grad()


def state(balancer: Balancer) -> dict[str, Tensor]:
    """A copy of the parameters and buffers."""
    kept = balancer.state_dict().items()
    return {k: v.detach().clone() for k, v in kept if isinstance(v, Tensor) and "_extra" not in k}
