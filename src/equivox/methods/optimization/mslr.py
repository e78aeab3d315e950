"""MSLR and ATF: learning rates of each modality (ACL Findings 2022; IEEE SPL 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from equivox.functional.learning_rates import dynamic_factors, lag, tracking_factors
from equivox.method import Method
from equivox.methods.optimization.cggm import cosine
from equivox.task import Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.method import Batch
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task

MODES = ("dynamic", "keep", "smooth", "atf")


class MSLR(Method):
    """Multiply the learning rate of each modality's encoder and head by a factor lambda_m.

    "dynamic": lambda_m = init_m A_m / mean(A_m of the last `memory` epochs), with A_m the held-out
    score of modality m alone before the epoch; init_m in the first `memory` epochs. "keep": init_m.
    "smooth": from init_m linearly to 1 over `epochs` (from memory). "atf", the adaptive tracking
    factor, is a reconstruction, as its formulas are not available: unimodal losses are added, and
    after `warmup` epochs lambda_m <- clip(M u_m / sum_k u_k), u_m = lambda_m exp(eta h_m)
    rho_m^kappa, with h_m the cosine of successive gradients and rho_m = c_m / mean(c), c_m the
    running mean of the unimodal loss relative to its value after the warm-up.

    Arguments:
        mode: one of these.
        factors: init_m by modality, 1 else; authors' CREMA-D 0.9 audio, 1.1 video.
        memory: epochs that are averaged; 5.
        epochs: in which "smooth" ends.
        acts_on: "lr" scales the step that the optimizer made, exact where it is proportional to the
            rate, as in SGD and Adam with their decay; "grad" the gradients (released code).
        gamma, eta, kappa, beta, warmup, bounds: of "atf" (all ours).

    Departures: A_m is the mean `task.correct`; of regression, one over the mean loss.

    Source: Yao and Mihalcea, Findings of ACL 2022; Sun, Mai and Hu, IEEE SPL 28, 2021.

    >>> MSLR(memory=3)  # doctest: +ELLIPSIS
    MSLR(mode='dynamic', factors={}, memory=3, epochs=100, acts_on='lr', ...)
    """

    category = "optimization"
    rates: Tensor
    history: Tensor
    ema: Tensor
    reference: Tensor
    needs_validation = True
    fidelity = "reconstruction"
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
        if mode not in MODES or acts_on not in ("lr", "grad"):
            raise ValueError(
                f'`mode` should be one of {MODES}, `acts_on` "lr" or "grad". '
                f"Found `{mode!r}` and `{acts_on!r}`."
            )
        if memory < 1 or epochs < 1:
            raise ValueError(
                f"`memory` and `epochs` should be 1 or more. Found {memory} and {epochs}."
            )
        if min(gamma, eta, kappa, warmup) < 0 or not 0 <= beta < 1:
            raise ValueError(
                "`gamma`, `eta`, `kappa` and `warmup` should be zero or more, `beta` in [0, 1). "
                f"Found {gamma}, {eta}, {kappa}, {warmup} and {beta}."
            )
        if not 0 < bounds[0] <= 1 <= bounds[1]:
            raise ValueError(f"`bounds` should enclose 1, above zero. Found `bounds = {bounds}`.")
        self.mode = mode
        self.factors = dict(factors or {})
        self.memory = memory
        self.epochs = epochs
        self.acts_on = acts_on
        self.gamma = gamma
        self.eta = eta
        self.kappa = kappa
        self.beta = beta
        self.warmup = warmup
        self.bounds = bounds
        self.needs_validation = mode == "dynamic"  # type: ignore[misc]
        self._initial: list[float] = []
        self._before: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        if mode == "atf":
            self.heads = "own"  # type: ignore[misc]
            self.ingredients = frozenset({"unimodal losses", "extra parameters"})  # type: ignore[misc]

    def setup(self, model: Multimodal, task: Task) -> Task:
        names = model.modalities
        if set(self.factors) - set(names) or any(f <= 0 for f in self.factors.values()):
            raise ValueError(
                f"`factors` should be positive numbers by modality of {list(names)}. "
                f"Found `factors = {self.factors}`."
            )
        self._initial = [self.factors.get(m, 1.0) for m in names]
        start = [1.0] * len(names) if self.mode == "atf" else self._initial
        self.register_buffer("rates", torch.tensor(start))
        self.register_buffer("history", torch.zeros(0, len(names)))
        self.register_buffer("ema", torch.zeros(len(names)))
        self.register_buffer("reference", torch.zeros(len(names)))
        if self.mode == "atf":
            owned = {m: model.encoder_parameters(m) for m in names}
            self.previous = nn.ModuleDict({m: _zeros(ps) for m, ps in owned.items()})
        return task

    def prepare(self, run: Run) -> None:
        initial = self.rates.new_tensor(self._initial)
        if self.mode == "smooth":
            done = min(1.0, run.number / max(1, self.epochs - 1))
            self.rates.copy_(initial + done * (1 - initial))
        if self.mode == "dynamic":
            scores = unimodal_scores(run)
            if len(self.history) == self.memory:
                self.rates.copy_(initial * dynamic_factors(scores, self.history))
            self.history = torch.cat([self.history, scores[None]])[-self.memory :]

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if self.mode != "atf":
            return losses
        said, loss = step.output.unimodal, step.task.loss
        rows = {m: loss(u.float(), step.target, reduction="none") for m, u in said.items()}
        step.note("mslr losses", rows)
        return losses | {m: self.gamma * step.loss(u) for m, u in said.items()}

    def gradients(self, update: Update) -> None:
        if self.mode == "atf":
            self._track(update)
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

    def _track(self, update: Update) -> None:
        """Running means, and after the warm-up the factors, of the modalities that learn."""
        means = update.mean("mslr losses")
        names = [m for m in update.model.modalities if m in means and update.gradient(m)]
        if not names:
            return
        at = torch.tensor(
            [update.model.modalities.index(m) for m in names], device=self.rates.device
        )
        new, old = torch.stack([means[m] for m in names]), self.ema[at]
        self.ema[at] = torch.where(old > 0, torch.lerp(new, old, self.beta), new)
        h = torch.stack([self._cosine(update, m) for m in names])
        if update.epoch >= self.warmup:
            known = self.reference[at]
            self.reference[at] = torch.where(known > 0, known, torch.where(old > 0, old, new))
            rho = lag(self.ema[at], self.reference[at])
            found = tracking_factors(self.rates[at], h, rho, self.eta, self.kappa)
            self.rates[at] = found.clamp(*self.bounds)

    def _cosine(self, update: Update, modality: str) -> Tensor:
        """h_m, of this gradient and that of the update before, which it replaces."""
        kept: list[Tensor] = list(self.previous[modality].parameters())
        gradient = [
            torch.zeros_like(p) if p.grad is None else p.grad
            for p in update.model.encoder_parameters(modality)
        ]
        h = cosine(gradient, kept)
        torch._foreach_copy_(kept, gradient)
        return h


def unimodal_scores(run: Run) -> Float[Tensor, " modalities"]:
    """The held-out score of each modality alone, the higher the better."""
    errors = isinstance(run.task, Regression)

    def what(output: Output, batch: Batch) -> dict[str, Tensor]:
        said, rows = output.unimodal, len(batch.target)
        judge = partial(run.task.loss, reduction="none") if errors else run.task.correct
        return {
            m: judge(said[m], batch.target) if m in said else output.logits.new_zeros(rows)
            for m in run.model.modalities
        }

    rows = run.collect(cast("Iterable[Any]", run.validation), what)
    means = torch.stack([rows[m].float().mean() for m in run.model.modalities])
    return 1 / means.clamp(min=1e-12) if errors else means


def _zeros(parameters: Sequence[nn.Parameter]) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(torch.zeros_like(p), False) for p in parameters])


def _scaled(update: Update, modality: str) -> list[nn.Parameter]:
    """What has modality m's learning rate: its encoder, and its own head."""
    heads = update.model.heads
    own = [] if heads is None or modality not in heads else list(heads[modality].parameters())
    return update.parameters(modality) + [p for p in own if p.grad is not None]
