"""LFM: Facilitating Classification via Dynamically Learning Modality Gap (NeurIPS 2024)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import exp
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivox.distributed import broadcast_, gathered, rank, world
from equivox.features import map_tensors, vector
from equivox.functional.contrastive import info_nce
from equivox.functional.divergence import js_divergence, mixture_divergence
from equivox.functional.gradients import flat_dot
from equivox.functional.outcomes import log_probabilities
from equivox.method import Batch, Method
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task

POLYNOMIAL = (
    2.04623704e-1,
    3.35472727e-3,
    1.22989557e-4,
    -2.92947416e-6,
    2.23835486e-8,
    -5.39717505e-11,
)
SCHEDULES = ("heuristic", "fitted", "learned", "learned_code")
Losses = Callable[[], tuple[Tensor, Tensor]]


def heuristic_weight(epoch: int) -> float:
    """k_al = 1 - exp(-1 / t) with t = epoch + 1: the alignment's weight falls.

    >>> round(heuristic_weight(0), 6), round(heuristic_weight(9), 6)
    (0.632121, 0.095163)
    """
    return 1 - exp(-1 / (epoch + 1))


def fitted_weight(epoch: int | float) -> float:
    """k_cls = sum_i c_i e^i, the released polynomial; meant for 0 <= e <= 199.

    >>> round(fitted_weight(0), 6), round(fitted_weight(100), 6)
    (0.204624, 0.539155)
    """
    return sum(c * epoch**i for i, c in enumerate(POLYNOMIAL))


def hypergradient(
    losses: Losses, held_out: Losses, parameters: Sequence[Tensor], alpha: Tensor, rate: float
) -> Tensor:
    """d L_cls^val(theta') / d alpha = -rate <grad L_cls^val(theta'), grad L_al - grad L_cls>.

    theta' = theta - rate grad[(1 - alpha) L_cls + alpha L_al]. The parameters are left at theta'.

    :param losses: (L_cls, L_al) of a training batch.
    :param held_out: The same of a held-out batch.
    """
    l_cls, l_al = losses()
    g_cls, g_al = _gradients(l_cls, parameters), _gradients(l_al, parameters)
    with torch.no_grad():
        for p, a, b in zip(parameters, g_cls, g_al, strict=True):
            p -= rate * ((1 - alpha) * a + alpha * b)
    g_val = _gradients(held_out()[0], parameters)
    return -rate * (flat_dot(g_val, g_al) - flat_dot(g_val, g_cls))


def released_signal(held_out: Losses, parameters: Sequence[Tensor], alpha: Tensor) -> Tensor:
    """The mean entry, in the first parameter, of the Hessian of the total loss times grad L_cls."""
    l_cls, l_al = held_out()
    g_total = _gradients((1 - alpha) * l_cls + alpha * l_al, parameters, create_graph=True)
    g_cls = _gradients(l_cls, parameters)
    product = torch.stack([(a * b).sum() for a, b in zip(g_total, g_cls, strict=True)]).sum()
    return _gradients(product, parameters[:1])[0].mean()


class LFM(Method):
    """Fit labels and align the modalities, with weights that move from alignment to the labels.

    L = 2 [(1 - k) L(z) + k L_al], with L_al the mean over all pairs of modalities of
    [KL(mu || p_a) + KL(mu || p_b)] / 2, mu = (p_a + p_b) / 2. p_m is the softmax of z_m, the logits
    whose mean is z: M times modality m's share of the fused logits.

    Arguments:
        schedule: of k. "heuristic" (LFM-H): 1 - exp(-1 / t), t = 1, 2, … by epoch. "fitted": one
            minus the polynomial that the authors fitted on CREMA-D. "learned" (LFM-LB): a step
            against the derivative of the held-out loss after one training step; before every epoch,
            from 0.95. "learned_code": the released form of it. A number: k itself, always.
        alignment: "divergence"; "js", the true Jensen-Shannon divergence; "infonce", the paper's
            contrast of the features, which must be equally wide.
        temperature: of "infonce"; 0.07.
        epochs: of the training, to which "fitted" stretches its 200.
        clamp: range of k_cls of "fitted"; None gives the released values, which leave [0, 1].
        rate: step of "learned" (default 1) and "learned_code" (1e-4, halved every 20 epochs).

    The learned schedules need validation data, of which they use the first batch: do not shuffle
    it. "learned_code" uses its first eight samples.

    Departures: any fusion is kept; the released model averages the logits of linear heads, which
    `Sum` and `Concat` equal. For fusions that do not add up shares, z_m is the answer with the
    other modalities blanked. Regression aligns predictions by squared differences, multi-label
    tasks each label, dense ones each position.

    Source: Yang et al., NeurIPS 2024.

    >>> LFM(schedule="fitted", epochs=100)
    LFM(schedule='fitted', alignment='divergence', temperature=0.07, epochs=100, ...)
    """

    category = "objective"
    search_space: ClassVar[Mapping[str, Any]] = {
        "schedule": ("heuristic", "fitted", "learned", 0.1, 0.5),
        "alignment": ("divergence", "js"),
    }

    k: Tensor

    def __init__(
        self,
        *,
        schedule: str | int | float = "heuristic",
        alignment: str = "divergence",
        temperature: float = 0.07,
        epochs: int = 200,
        clamp: tuple[float, float] | None = (0.05, 0.95),
        rate: float | None = None,
    ) -> None:
        super().__init__()
        fixed = isinstance(schedule, (int, float)) and 0 <= schedule <= 1
        if not fixed and schedule not in SCHEDULES:
            raise ValueError(
                f"`schedule` should be one of {SCHEDULES} or a number in [0, 1]. "
                f"Found `{schedule!r}`."
            )
        if alignment not in ("divergence", "js", "infonce"):
            raise ValueError(
                f'`alignment` should be "divergence", "js" or "infonce". Found `{alignment!r}`.'
            )
        if temperature <= 0 or epochs < 1:
            raise ValueError(
                f"`temperature` and `epochs` should be positive. Found {temperature} and {epochs}."
            )
        self.schedule = schedule
        self.alignment = alignment
        self.temperature = temperature
        self.epochs = epochs
        self.clamp = clamp
        self.rate = rate
        self.needs_validation = schedule in ("learned", "learned_code")  # type: ignore[misc]

    def setup(self, model: Multimodal, task: Task) -> Task:
        if self.alignment == "infonce" and len(set(model.widths.values())) > 1:
            raise ValueError(
                f"Features that are contrasted should be equally wide. Found {model.widths}. "
                'Use `alignment="divergence"`.'
            )
        self.register_buffer("k", torch.full((), 0.95))
        return task

    def prepare(self, run: Run) -> None:
        if self.schedule == "heuristic":
            self.k.fill_(heuristic_weight(run.number))
        elif self.schedule == "fitted":
            k_cls = fitted_weight(run.number * 200 / self.epochs)
            low, high = self.clamp or (-torch.inf, torch.inf)
            self.k.fill_(1 - min(max(k_cls, low), high))
        elif isinstance(self.schedule, str):
            self._learn(run)
        else:
            self.k.fill_(self.schedule)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        aligned = self._alignment(step.output, step.task)
        fit = {"joint": 2 * (1 - self.k) * losses["joint"]}
        return losses | fit | ({} if aligned is None else {"alignment": 2 * self.k * aligned})

    def _alignment(self, output: Output, task: Task) -> Tensor | None:
        """L_al: the mean over all pairs; None for a single modality."""
        if self.alignment == "infonce":
            said = {m: _everywhere(vector(z)) for m, z in output.features.items()}
        else:
            said = averaged_logits(output)
        pairs = [self._gap(a, b, task) for a, b in combinations(said.values(), 2)]
        return torch.stack(pairs).mean() if pairs else None

    def _gap(self, a: Tensor, b: Tensor, task: Task) -> Tensor:
        if self.alignment == "infonce":
            loss = info_nce(a, b, self.temperature)
            # Wrappers average gradients over ranks, of which each holds those of its own rows.
            return loss + (world() - 1) * (loss - loss.detach())
        if isinstance(task, Regression):
            return (a - b).square().mean()
        log_p, log_q = (log_probabilities(z, isinstance(task, MultiLabel)) for z in (a, b))
        divergence = js_divergence if self.alignment == "js" else mixture_divergence
        return divergence(log_p, log_q).mean()

    def _learn(self, run: Run) -> None:
        """One step of k against the derivative of the held-out loss."""
        model = copy.deepcopy(run.model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        held_out = _first(run.validation, parameters[0].device)
        if self.schedule == "learned":
            model.train()
            train = _first(run.loader, parameters[0].device)
            signal = hypergradient(
                lambda: self._both(model, train, run.task),
                lambda: self._both(model, held_out, run.task),
                parameters,
                self.k,
                _learning_rate(run),
            )
            rate = 1.0 if self.rate is None else self.rate
        else:
            model.train(run.number == 0)  # as released: validation left it in eval mode
            few = _rows(held_out, 8)
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                signal = released_signal(
                    lambda: self._both(model, few, run.task), parameters, self.k
                )
            rate = (1e-4 if self.rate is None else self.rate) * 0.5 ** (run.number // 20)
        with torch.no_grad():
            self.k.copy_((self.k - rate * signal).clamp(0.05, 0.95))
        broadcast_([self.k])

    def _both(self, model: Multimodal, batch: Batch, task: Task) -> tuple[Tensor, Tensor]:
        output = model(batch.inputs)
        aligned = self._alignment(output, task)
        loss = task.loss(output.logits, batch.target)
        return loss, loss * 0 if aligned is None else aligned


def averaged_logits(output: Output) -> dict[str, Tensor]:
    """Each modality's own logits, of which the fused ones are the mean."""
    shares = output.split
    additive = hasattr(output.model.fusion, "unimodal")
    return {m: len(shares) * z if additive else z for m, z in shares.items()}


def _everywhere(rows: Tensor) -> Tensor:
    """The features of all ranks; gradients flow into this rank's own."""
    if world() == 1:
        return rows
    parts = list(gathered(rows.detach()).split(len(rows)))
    parts[rank()] = rows
    return torch.cat(parts)


def _gradients(
    loss: Tensor, parameters: Sequence[Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        loss,
        list(parameters),
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def _first(loader: Any, device: Any) -> Batch:
    return Batch.of(next(iter(loader))).to(device)


def _rows(batch: Batch, count: int) -> Batch:
    inputs, target = map_tensors(lambda x: x[:count], (batch.inputs, batch.target))
    return batch.with_(inputs=inputs, target=target)


def _learning_rate(run: Run) -> float:
    if run.balancer.optimizer is None:
        raise RuntimeError(
            "A learned schedule looks one step of the optimizer ahead. Found no optimizer. Call "
            "`optimizer = balancer.attach(optimizer)` before training."
        )
    return float(run.balancer.optimizer.param_groups[0]["lr"])
