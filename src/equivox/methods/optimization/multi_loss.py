"""MLB: Improving Multimodal Learning with Multi-Loss Gradient Modulation (BMVC 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import number, span
from equivox.functional import mean_of_others
from equivox.functional.schedules import within
from equivox.method import Method
from equivox.modules.classifiers import late_gradients
from equivox.task import MultiLabel, Regression

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.step import Step, Update


def lag_ratios(
    scores: Mapping[str, Float[Tensor, ""]], errors: bool = False
) -> dict[str, Float[Tensor, ""]]:
    """r_m = mean_{j != m} s_j / s_m: above one where modality m lags behind the others.

    With `errors` the scores are errors, the smaller the better, and the ratio is inverted.

    >>> lag_ratios({"audio": torch.tensor(0.6), "video": torch.tensor(0.3)})
    {'audio': tensor(0.5000), 'video': tensor(2.)}
    """
    kept = {m: s.clamp(min=1e-8) for m, s in scores.items()}  # 0 / 0 is not a number
    others = mean_of_others(kept)
    return {m: s / others[m] if errors else others[m] / s for m, s in kept.items()}


def mlb_coefficient(r: Float[Tensor, ""], alpha: float, beta: float = 2.0) -> Float[Tensor, ""]:
    """k = 1 + (beta - 1) tanh(alpha (r - 1)) where r > 1, else 1 + tanh(alpha (r - 1)).

    >>> mlb_coefficient(torch.tensor(1.5), alpha=0.8)
    tensor(1.3799)
    """
    tanh = torch.tanh(alpha * (r - 1))
    return 1 + torch.where(r > 1, (beta - 1) * tanh, tanh)


class MultiLoss(Method):
    """Add a unimodal loss a modality, and speed up or slow down each encoder by how it lags.

    L = lambda_joint L(z, y) + lambda_unimodal sum_m L(u_m, y), with u_m a linear head on z_m. The
    gradient of encoder m, of head m, and of the late-fusion weight that reads m alone are then
    multiplied by k_m = 1 + tanh(alpha (r_m - 1)), where r_m = mean_{j != m} s_j / s_m and s_m is
    the mean probability of the true class under u_m. At balance k_m is one.

    Arguments:
        alpha: slope; the authors' code uses 0.8 on CREMA-D, AVE and MOSEI, 1.0 on UCF101.
        beta: bound of k_m for a modality that lags; 2 is the form of BMVC 2024.
        lambda_joint, lambda_unimodal: weights of the losses; 1 and 1 in the paper.
        scale_heads: False leaves the unimodal heads' gradients as they are.
        starts, ends: first and last epoch, counted from 0, in which gradients are scaled.

    Regression compares mean squared errors, with the inverted ratio. Multi-label: s_m is the mean
    probability of the positive labels (ours). Dense: the geometric mean probability of a sample's
    positions (ours). The late-fusion weight is that of `Concat` (its columns) or `Sum`; every
    other layer of a fusion serves several modalities and stays untouched, as do its biases.

    Departures: scores are bounded below by 1e-8. Under Adam a constant k_m nearly cancels; what
    acts is its change over time.

    Source: Kontras et al., BMVC 2024, arXiv 2405.07930; `beta` from the extension (IJCV 2025).

    >>> MultiLoss(alpha=1.0)  # doctest: +ELLIPSIS
    MultiLoss(alpha=1.0, beta=2.0, lambda_joint=1.0, lambda_unimodal=1.0, ...)
    """

    category = "optimization"
    fidelity = "official"
    heads = "own"
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {"alpha": (0.8, 1.0, 0.5, 2.0), "beta": (2.0, 4.0)}
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0, "lambda_unimodal": 0.0}

    def __init__(
        self,
        *,
        alpha: float = 0.8,
        beta: float = 2.0,
        lambda_joint: float = 1.0,
        lambda_unimodal: float = 1.0,
        scale_heads: bool = True,
        starts: int = 0,
        ends: int | None = None,
    ) -> None:
        super().__init__()
        self.alpha = number("alpha", alpha, least=0)
        self.beta = number("beta", beta, least=1)
        self.lambda_joint = number("lambda_joint", lambda_joint, least=0)
        self.lambda_unimodal = number("lambda_unimodal", lambda_unimodal, least=0)
        self.scale_heads = scale_heads
        self.starts, self.ends = span(starts, ends)
        self.leaves_unused = lambda_unimodal == 0

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        unimodal = step.output.unimodal
        kind = "errors" if isinstance(step.task, Regression) else "scores"
        step.note(kind, {m: _score(step, logits) for m, logits in unimodal.items()})
        terms = {"joint": self.lambda_joint * losses["joint"]}
        if self.lambda_unimodal:
            terms |= {m: self.lambda_unimodal * step.loss(u) for m, u in unimodal.items()}
        return losses | terms

    def gradients(self, update: Update) -> None:
        if not within(update.epoch, self.starts, self.ends):
            return
        errors = bool(update.rows("errors"))
        means = update.mean("errors" if errors else "scores")
        for modality, r in lag_ratios(means, errors).items():
            if gradients := self._scaled(update, modality):
                torch._foreach_mul_(gradients, mlb_coefficient(r, self.alpha, self.beta))

    def _scaled(self, update: Update, modality: str) -> list[Tensor]:
        """The gradients that k_m multiplies."""
        found = update.gradient(modality) + late_gradients(update.model.fusion, modality)
        if self.scale_heads and update.model.heads is not None:
            head = update.model.heads[modality]
            found += [p.grad for p in head.parameters() if p.grad is not None]
        return found


def _score(step: Step, logits: Tensor) -> Tensor:
    """Each sample's part of s_m, (batch,)."""
    if isinstance(step.task, Regression):
        return step.task.loss(logits.detach().float(), step.target, reduction="none")
    if isinstance(step.task, MultiLabel):  # how many labels are positive cancels in the ratio
        return (logits.detach().float().sigmoid() * step.target).sum(-1)
    return step.score(logits)
