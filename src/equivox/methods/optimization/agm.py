"""AGM: Boosting Multi-modal Model Performance with Adaptive Gradient Modulation (ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.features import Features, blanked, leaves
from equivox.functional import (
    flat_norm,
    mean_of_others,
    scale_gradient,
    shapley_values,
    subsets,
)
from equivox.functional.precision import at_least_float32
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.model import Multimodal, evaluating

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.step import Step, Update
    from equivox.task import Task


def discrepancies(scores: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """r_m = exp(mean over the others j of s_j - s_m), of losses s: above one where m is ahead.

    >>> discrepancies({"audio": torch.tensor(0.5), "video": torch.tensor(0.5)})
    {'audio': tensor(1.), 'video': tensor(1.)}
    """
    others = mean_of_others(scores)
    return {m: torch.exp(others[m] - s) for m, s in scores.items()}


def agm_coefficients(
    scores: Mapping[str, Float[Tensor, ""]],
    running: Mapping[str, Float[Tensor, ""]],
    alpha: float,
    cap: float | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """kappa_m = exp(alpha min(tau_m - r_m, cap)): below one where m is further ahead than usual.

    r_m are the `discrepancies` of this batch's losses, tau_m those of the running means.

    >>> now = {"audio": torch.tensor(0.511633), "video": torch.tensor(0.933113)}
    >>> agm_coefficients(now, dict.fromkeys(now, torch.tensor(0.0)), alpha=1.5)
    {'audio': tensor(0.4555), 'video': tensor(1.6751)}
    """
    r, tau = discrepancies(scores), discrepancies(running)
    lead = {m: tau[m] - r[m] for m in scores}
    return {m: torch.exp(alpha * (x if cap is None else x.clamp(max=cap))) for m, x in lead.items()}


class AGM(Method):
    """Scale the gradient that flows into each modality's response to the batch.

    The response o_m is the Shapley value of modality m in the logits, so that their sum is the
    plain logits; the loss is that of sum_m G_m(o_m), where G_m multiplies gradients by kappa_m and
    changes no value. Scores s_m are the mean losses of the o_m. Any network, any fusion.

    Arguments:
        alpha: strength; the authors use 1.5 on CREMA-D and 2.5 on AV-MNIST.
        cap: upper bound of tau - r, hence of kappa; 10 on CREMA-D, 7 on UR-Funny, None elsewhere.
        mask: "input" blanks the inputs of absent modalities, as the paper does: every encoder runs
            three times a step, however many modalities there are. "feature" blanks features: no
            encoder runs again.
        clip: where an entry of the fusion's weight gradients exceeds it, the norm of all gradients
            is clipped to it; None leaves them.
        starts, ends: first and last epoch, counted from 0, in which it acts. The code counts from
            1 and ends at 20 by default; on CREMA-D it acts throughout.
        after_end: "identity", or "freeze": the last factors for ever, as in the released code.
        centre: responses without the logits of no modality at all, which joins the output as it is;
            for regression with a large bias.

    Departures: exact for any number of modalities; encoders, being independent, run once for all
    subsets. The score of regression and multi-label tasks is their loss; running means count
    updates, of which several micro-batches are one.

    Raises TypeError where `mask="input"` meets an input without a floating tensor.

    Source: Li et al., ICCV 2023; scores, cap and clipping after the released code.

    >>> AGM(alpha=1.5).mask
    'input'
    """

    category = "optimization"
    search_space: ClassVar[Mapping[str, Any]] = {"alpha": (1.5, 2.5, 1.0, 0.5, 0.1)}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "The paper's factors follow the scores of one forward."
    }
    running: Tensor
    count: Tensor
    kappa: Tensor

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        cap: float | None = 10.0,
        mask: str = "input",
        clip: float | None = 1.0,
        starts: int = 0,
        ends: int | None = None,
        after_end: str = "identity",
        centre: bool = False,
    ) -> None:
        super().__init__()
        if alpha < 0:
            raise ValueError(f"`alpha` should be zero or more. Found `alpha = {alpha}`.")
        if clip is not None and clip <= 0:
            raise ValueError(f"`clip` should be positive or None. Found `clip = {clip}`.")
        if mask not in ("input", "feature"):
            raise ValueError(f'`mask` should be "input" or "feature". Found `{mask!r}`.')
        if after_end not in ("identity", "freeze"):
            raise ValueError(
                f'`after_end` should be "identity" or "freeze". Found `{after_end!r}`.'
            )
        self.alpha = alpha
        self.cap = cap
        self.mask = mask
        self.clip = clip
        self.starts = starts
        self.ends = ends
        self.after_end = after_end
        self.centre = centre

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.register_buffer("running", torch.zeros(len(model.modalities)))
        self.register_buffer("count", torch.zeros(len(model.modalities)))
        self.register_buffer("kappa", torch.ones(len(model.modalities)))
        return task

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        values = self._values(step)
        responses = shapley_values(values, step.modalities)
        # -log of the clamped probability is the loss, at most -log 1e-8.
        scores = {m: -step.score(o).clamp(min=1e-8).log() for m, o in responses.items()}
        step.note("score", scores)
        kappa = self._kappa(step.mean(scores), step.epoch, step.model)
        terms = [scale_gradient(o, kappa[m]) for m, o in responses.items()]
        rest = [values[frozenset()]] if self.centre else []
        return losses | {"joint": step.loss(sum_of(terms + rest))}

    def gradients(self, update: Update) -> None:
        if self.clip is not None:
            weights = [p.grad for p in update.model.fusion_parameters() if p.ndim > 1]
            every = [p.grad for p in update.model.parameters() if p.grad is not None]
            _clip([g for g in weights if g is not None], every, self.clip)

    def updated(self, update: Update) -> None:
        scores = update.mean("score")
        kappa = self._kappa(scores, update.epoch, update.model)
        for modality, score in scores.items():
            i = update.model.modalities.index(modality)
            self.kappa[i] = kappa[modality]
            self.count[i] += 1
            self.running[i].lerp_(score, 1 / self.count[i])

    def _values(self, step: Step) -> dict[frozenset[str], Tensor]:
        """The logits of every subset of the modalities; of no modality only where it is needed."""
        wanted = [s for s in subsets(step.modalities)[:-1] if s or self.centre]
        values = masked_logits(step, wanted, self.mask)
        values[frozenset(step.modalities)] = step.output.logits
        return {s: at_least_float32(x) for s, x in values.items()}

    def _kappa(
        self, scores: Mapping[str, Tensor], epoch: int, model: Multimodal
    ) -> dict[str, Tensor]:
        index = {m: model.modalities.index(m) for m in scores}
        ended = self.ends is not None and epoch > self.ends
        if ended and self.after_end == "freeze":
            return {m: self.kappa[i].clone() for m, i in index.items()}
        if ended or epoch < self.starts:
            return {m: torch.ones_like(s) for m, s in scores.items()}
        running = {m: self.running[i] for m, i in index.items()}
        return agm_coefficients(scores, running, self.alpha, self.cap)


def masked_logits(
    step: Step, subsets: Sequence[Set[str]], mask: str
) -> dict[frozenset[str], Tensor]:
    """The logits of each subset, in eval mode and with a graph: without one there is no modulation.

    An encoder sees no other modality, so one pass over the inputs and one over their blanks serve
    all subsets.
    """
    model = step.model
    if mask == "feature":
        return model.fuse_subsets(step.output.features, subsets)
    inputs = dict(step.batch.inputs)
    with evaluating(model):
        there = _encoded(step, inputs)
        gone = _encoded(step, inputs | {m: _blank(m, inputs[m]) for m in step.modalities})
        return {
            frozenset(s): model.fused({m: (there if m in s else gone)[m] for m in there}).logits
            for s in subsets
        }


def _encoded(step: Step, inputs: Mapping[str, Any]) -> Features:
    features = step.model.encode(inputs, step.batch.learn)
    keep = step.batch.keep
    return features if keep is None else step.model.blanked(features, keep)


def _blank(modality: str, x: Any) -> Any:
    if not any(leaf.is_floating_point() for leaf in leaves(x)):
        raise TypeError(
            '`AGM(mask="input")` replaces inputs by zeros. Found no floating tensor in that of '
            f'`{modality}`. Use `AGM(mask="feature")`, or embed the tokens outside the model.'
        )
    return blanked(x, False)


def _clip(weights: Sequence[Tensor], every: Sequence[Tensor], limit: float) -> None:
    """Bound the norm of all gradients where an entry of the weights' exceeds the limit."""
    if not weights:
        return
    largest = torch.stack([g.abs().amax().float() for g in weights]).amax()
    factor = (limit / (flat_norm(every) + 1e-6)).clamp(max=1)
    torch._foreach_mul_(list(every), torch.where(largest > limit, factor, 1.0))
