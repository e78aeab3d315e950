"""OLM: Balancing Multimodal Learning via Online Logit Modulation (IJCAI 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.functional.precision import at_least_float32
from equivox.fusion import sum_of
from equivox.method import Batch, Method
from equivox.model import evaluating
from equivox.task import Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task

Scalars = Mapping[str, Tensor]


def speed_ratios(
    generalisation: Mapping[str, Float[Tensor, ""]], overfitting: Mapping[str, Float[Tensor, ""]]
) -> dict[str, Float[Tensor, ""]]:
    """r = softmax_k(max(G_k, 1e-6) / max(O_k, 1e-6)): the larger, the sounder a branch learns.

    >>> half, one = torch.tensor(0.5), torch.tensor(1.0)
    >>> speed_ratios({"a": half, "b": half}, {"a": one, "b": one})
    {'a': tensor(0.5000), 'b': tensor(0.5000)}
    """
    quotients = [
        gain.clamp(min=1e-6) / overfitting[k].clamp(min=1e-6) for k, gain in generalisation.items()
    ]
    return dict(zip(generalisation, torch.stack(quotients).softmax(0).unbind(), strict=True))


def loss_ratios(
    losses: Mapping[str, Float[Tensor, ""]], references: Mapping[str, Float[Tensor, ""]]
) -> dict[str, Float[Tensor, ""]]:
    """r_k = q_k / mean(q) with q_k = L_k / L_k^0: above one for a branch that learns slowly.

    >>> one, two = torch.tensor(1.0), torch.tensor(2.0)
    >>> loss_ratios({"a": one, "b": one}, {"a": two, "b": one})
    {'a': tensor(0.6667), 'b': tensor(1.3333)}
    """
    quotients = torch.stack([loss / references[k].clamp(min=1e-8) for k, loss in losses.items()])
    ratios = quotients / quotients.mean().clamp(min=1e-8)
    return dict(zip(losses, ratios.unbind(), strict=True))


def norm_distance(
    scales: Mapping[str, Float[Tensor, ""]],
    norms: Mapping[str, Float[Tensor, " batch"]],
    ratios: Mapping[str, Float[Tensor, ""]],
) -> Float[Tensor, " batch"]:
    """sum_k |N_ik - T_ik| with N_ik = w_k |z_k^i| and T_ik = r_k mean_k(N_ik), a constant.

    The gradient flows into the scales w_k alone.
    """
    scaled = {k: scales[k] * norm.detach() for k, norm in norms.items()}
    mean = (sum_of(scaled.values()) / len(scaled)).detach()
    return sum_of((n - ratios[k].detach() * mean).abs() for k, n in scaled.items())


class OLM(Method):
    """Scale each branch's logits by a learned number, pulled to a target that its speed sets.

    Branches k are the modalities, by their own heads, and the fusion ("joint"). The loss is
    sum_k L(w_k z_k, y) + mean_i sum_k |N_ik - T_ik| with N_ik = w_k |z_k^i| and the target
    T_ik = r_k mean_k(N_ik); the second term moves the w_k alone. With L^0 the losses of the last
    batch of epoch 0, on training and held-out data, G_k = L'_k^0 - L'_k and
    O_k = (L_k^0 - L_k) - G_k, r = softmax(max(G, 1e-6) / max(O, 1e-6)).

    Arguments:
        variant: "generalisation", or "loss_ratio", r_k = q_k / mean(q) with q_k = L_k / L_k^0,
            which needs no held-out data.
        lr: learning rate of the w_k; 1e-3 in the authors' code, with an Adam of its own. None is
            that of the network, as for their transformers.
        normalise: "sum", r sums to one over the branches, so that the target is 1/K of the mean
            norm and pulls all w_k down (released code), or "mean", K r. Of "generalisation" only.
        reduction: "mean", or "sum" over the batch, as the released code.
        hold_out: "eval", the held-out batch is read in eval mode, or "train", as the released code.

    Departures: batch means, so that a last short batch compares; the held-out loader is cycled
    instead of ending the epoch. The fusion is the model's (the authors': bilinear). Prediction is
    w z of the fusion. Regression, where the size of z has a meaning, has no second term.

    Source: Zong et al., IJCAI 2024, and the submission's code.

    >>> OLM(variant="loss_ratio")  # doctest: +ELLIPSIS
    OLM(variant='loss_ratio', lr=0.001, normalise='sum', ...)
    """

    category = "objective"
    heads = "own"
    needs_validation = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "variant": ("generalisation", "loss_ratio"),
        "lr": (1e-3, 1e-4),
    }
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "every step compares its own losses with a held-out batch",
        "equals_on_two_ranks_accumulating": (
            "every step compares its own losses with a held-out batch"
        ),
    }

    def __init__(
        self,
        *,
        variant: str = "generalisation",
        lr: float | None = 1e-3,
        normalise: str = "sum",
        reduction: str = "mean",
        hold_out: str = "eval",
    ) -> None:
        super().__init__()
        _check("variant", variant, ("generalisation", "loss_ratio"))
        _check("normalise", normalise, ("sum", "mean"))
        _check("reduction", reduction, ("mean", "sum"))
        _check("hold_out", hold_out, ("eval", "train"))
        if lr is not None and lr < 0:
            raise ValueError(f"`lr` should be zero or more. Found `lr = {lr}`.")
        self.variant = variant
        self.lr = lr
        self.normalise = normalise
        self.reduction = reduction
        self.hold_out = hold_out
        self.needs_validation = variant == "generalisation"  # type: ignore[misc]

    def setup(self, model: Multimodal, task: Task) -> Task:
        branches = (*model.modalities, "joint")
        self.scales = nn.ParameterDict({k: nn.Parameter(torch.ones(())) for k in branches})
        self.reference = _constants(branches)
        self.held_out_reference = _constants(branches)
        return task

    def groups(self) -> list[dict[str, Any]]:
        if self.lr is None:
            return []
        return [{"params": list(self.scales.parameters()), "lr": self.lr, "weight_decay": 0.0}]

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        if self.variant == "loss_ratio":
            yield from batches
            return
        held_out = _cycled(run)
        for batch in batches:
            other = next(held_out)
            yield batch.with_(extra={"inputs": other.inputs, "target": other.target})

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        branches = {**step.output.unimodal, "joint": step.output.logits}
        scaled = self._scaled(branches)
        terms = {k: step.loss(z) for k, z in scaled.items()}
        if not isinstance(step.task, Regression):
            norms = {k: _norms(z) for k, z in branches.items()}
            distance = norm_distance(dict(self.scales), norms, self._ratios(scaled, step))
            terms["norm"] = distance.mean()
        if self.reduction == "sum":
            terms = {k: len(branches["joint"]) * term for k, term in terms.items()}
        return losses | terms

    def predict(self, output: Output) -> Tensor:
        return self.scales["joint"] * output.logits

    def _scaled(self, branches: Scalars) -> dict[str, Tensor]:
        return {k: self.scales[k] * at_least_float32(z) for k, z in branches.items()}

    @torch.no_grad()
    def _ratios(self, scaled: Scalars, step: Step) -> Scalars:
        """r_k, the share of the mean norm that each branch should have."""
        now = _means(scaled, step.target, step)
        if step.epoch == 0:
            _keep(self.reference, now)
        if self.variant == "loss_ratio":
            return loss_ratios(now, dict(self.reference))
        later = self._held_out(step)
        if step.epoch == 0:
            _keep(self.held_out_reference, later)
        gains = {k: self.held_out_reference[k] - later[k] for k in now}
        over = {k: self.reference[k] - now[k] - gains[k] for k in now}
        ratios = speed_ratios(gains, over)
        factor = len(ratios) if self.normalise == "mean" else 1
        return {k: factor * r for k, r in ratios.items()}

    def _held_out(self, step: Step) -> Scalars:
        """Each branch's loss on the held-out batch."""
        mode = evaluating(step.model) if self.hold_out == "eval" else nullcontext()
        with mode:
            output = step.model(step.batch.extra["inputs"])
            branches = {**output.unimodal, "joint": output.logits}
        return _means(self._scaled(branches), step.batch.extra["target"], step)


def _norms(logits: Tensor) -> Tensor:
    """|z| over the classes, averaged over the positions of a dense prediction: (batch,)."""
    norms = torch.linalg.vector_norm(logits.detach().float(), dim=1)
    return norms.flatten(1).mean(1) if norms.ndim > 1 else norms


def _means(logits: Scalars, target: Any, step: Step) -> dict[str, Tensor]:
    """The task's mean loss of each branch, over all ranks."""
    rows = {k: step.task.loss(z, target, reduction="none") for k, z in logits.items()}
    means: dict[str, Tensor] = step.mean(rows)
    return means


def _keep(references: nn.ParameterDict, losses: Scalars) -> None:
    for k, loss in losses.items():
        references[k].copy_(loss)


def _constants(names: Iterable[str]) -> nn.ParameterDict:
    """Numbers that are kept in checkpoints and never learn."""
    return nn.ParameterDict({k: nn.Parameter(torch.zeros(()), requires_grad=False) for k in names})


def _cycled(run: Run) -> Iterator[Batch]:
    """The held-out batches, again and again."""
    while True:
        first = None
        for first in run.batches(run.validation or ()):
            yield first
        if first is None:
            raise ValueError("Held-out data should hold a batch. Found an empty loader.")


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` should be one of {allowed}. Found `{value!r}`.")
