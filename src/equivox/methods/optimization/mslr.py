"""MSLR and ATF: learning rates of each modality (ACL Findings 2022; IEEE SPL 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.arguments import choice, number
from equivox.functional.learning_rates import dynamic_factors
from equivox.method import Method
from equivox.methods.held_out import unimodal_merits
from equivox.modules.tracking import Tracker
from equivox.task import Regression

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task


class MSLR(Method):
    """Multiply the learning rate of each modality's encoder and head by a factor lambda_m.

    "dynamic": lambda_m = init_m A_m / mean(A_m of the last `memory` epochs), with A_m the held-out
    score of modality m alone before the epoch; init_m in the first `memory` epochs. "keep": init_m.
    "smooth": from init_m linearly to 1 over `epochs` (from memory). "atf", the adaptive tracking
    factor: unimodal losses are added, and after `warmup` epochs lambda_m follows losses and
    gradients, by the rule of `Tracker`, a reconstruction, as its formulas are not available.

    Arguments:
        mode: one of these.
        factors: init_m by modality, 1 else; authors' CREMA-D 0.9 audio, 1.1 video.
        memory, epochs: those that are averaged, 5 in the paper; those in which "smooth" ends.
        acts_on: "lr" scales the step that the optimizer made, exact where it is proportional to the
            rate, as in SGD and Adam with their decay; "grad" the gradients (released code).
        gamma: weight of the unimodal losses of "atf".
        eta, kappa, beta, bounds: of `Tracker`. These and `gamma` and `warmup` are ours.

    Departures: A_m is the mean `task.correct`; of regression, one over the mean loss.

    Source: Yao and Mihalcea, Findings of ACL 2022; Sun, Mai and Hu, IEEE SPL 28, 2021.

    >>> MSLR(memory=3)  # doctest: +ELLIPSIS
    MSLR(mode='dynamic', factors={}, memory=3, epochs=100, acts_on='lr', ...)
    """

    category = "optimization"
    rates: Tensor
    history: Tensor
    needs_validation = True
    fidelity = "paper"
    search_space: ClassVar[Mapping[str, Any]] = {"memory": (5, 3, 10), "acts_on": ("lr", "grad")}
    neutral: ClassVar[Mapping[str, Any]] = {"mode": "keep"}
    brief: ClassVar[Mapping[str, Any]] = {"memory": 1}

    def __init__(
        self,
        *,
        mode: str = "dynamic",
        factors: Mapping[str, float] | None = None,
        memory: int = 5,
        epochs: int = 100,
        acts_on: str = "lr",
        gamma: float = 1.0,
        eta: float = 0.01,
        kappa: float = 0.5,
        beta: float = 0.9,
        warmup: int = 1,
        bounds: tuple[float, float] = (0.1, 10.0),
    ) -> None:
        super().__init__()
        if not 0 < bounds[0] <= 1 <= bounds[1]:
            raise ValueError(f"`bounds` should enclose 1, above zero. Found `bounds = {bounds}`.")
        self.mode = choice("mode", mode, ("dynamic", "keep", "smooth", "atf"))
        self.factors = {m: number("factors", f, above=0) for m, f in (factors or {}).items()}
        self.memory = number("memory", memory, least=1)
        self.epochs = number("epochs", epochs, least=1)
        self.acts_on = choice("acts_on", acts_on, ("lr", "grad"))
        self.gamma = number("gamma", gamma, least=0)
        self.eta = number("eta", eta, least=0)
        self.kappa = number("kappa", kappa, least=0)
        self.beta = number("beta", beta, least=0, below=1)
        self.warmup = number("warmup", warmup, least=0)
        self.bounds = bounds
        self.needs_validation = mode == "dynamic"
        if mode in ("smooth", "atf"):
            self.fidelity = "reconstruction"
        self._before: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        if mode == "atf":
            self.heads = "own"
            self.ingredients = frozenset({"unimodal losses", "extra parameters"})

    def setup(self, model: Multimodal, task: Task) -> Task:
        names = model.modalities
        if unknown := [m for m in self.factors if m not in names]:
            raise ValueError(f"`factors` should be by modality of {list(names)}. Found {unknown}.")
        factors = {} if self.mode == "atf" else self.factors
        self.register_buffer("rates", torch.tensor([factors.get(m, 1.0) for m in names]))
        self.register_buffer("history", torch.zeros(0, len(names)))
        if self.mode == "atf":
            encoders = {m: model.encoder_parameters(m) for m in names}
            self.tracker = Tracker(encoders, self.eta, self.kappa, self.beta, self.bounds)
        return task

    def prepare(self, run: Run) -> None:
        initial = self.rates.new_tensor([self.factors.get(m, 1.0) for m in run.model.modalities])
        if self.mode == "smooth":
            done = min(1.0, run.number / max(1, self.epochs - 1))
            self.rates.copy_(initial + done * (1 - initial))
        if self.mode == "dynamic":
            scores = unimodal_merits(run)
            if isinstance(run.task, Regression):
                scores = -1 / scores.clamp(max=-1e-12)
            if len(self.history) == self.memory:
                self.rates.copy_(initial * dynamic_factors(scores, self.history))
            self.history = torch.cat([self.history, scores[None]])[-self.memory :]

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if self.mode != "atf":
            return losses
        said, loss = step.output.unimodal, step.task.loss
        rows = {m: loss(u.float(), step.target, reduction="none") for m, u in said.items()}
        step.note("losses", rows)
        return losses | {m: self.gamma * step.loss(u) for m, u in said.items()}

    def gradients(self, update: Update) -> None:
        if self.mode == "atf":
            losses, encoder = update.mean("losses"), update.model.encoder_parameters
            learning = {m: encoder(m) for m in losses if update.gradient(m)}
            self.tracker.track_(self.rates, losses, learning, update.epoch >= self.warmup)
        for m, rate in zip(update.model.modalities, self.rates.unbind(), strict=True):
            parameters = _scaled(update, m)
            if self.acts_on == "grad" and parameters:
                torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], rate)
            if self.acts_on == "lr":
                self._before += [(p, p.clone(), rate) for p in parameters]

    def updated(self, update: Update) -> None:
        for parameter, before, rate in self._before:
            parameter.copy_(torch.lerp(before, parameter, rate.to(parameter.dtype)))
        self._before = []


def _scaled(update: Update, modality: str) -> list[nn.Parameter]:
    """What has modality m's learning rate: its encoder, and its own head."""
    heads = update.model.heads
    own = [] if heads is None or modality not in heads else list(heads[modality].parameters())
    return update.parameters(modality) + [p for p in own if p.grad is not None]
