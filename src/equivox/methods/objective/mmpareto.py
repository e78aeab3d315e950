"""MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance (ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.functional import flat_dot, flat_norm, min_norm_pair, min_norm_weights
from equivox.fusion import sum_of
from equivox.method import Method

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.step import Step, Update

Gradient = Sequence[Tensor]


def pareto_weights(gradients: Sequence[Gradient]) -> Float[Tensor, " losses"]:
    """The weights of two or more losses' gradients on the same parameters; they add up to one.

    Equal where every two gradients have a positive inner product. Otherwise those of the shortest
    convex combination, which no loss opposes.

    >>> pareto_weights([[torch.tensor([1.0, 0.0])], [torch.tensor([-2.0, 2.0])]])
    tensor([0.7692, 0.2308])
    """
    count = len(gradients)
    gramian = torch.stack([torch.stack([flat_dot(a, b) for b in gradients]) for a in gradients])
    if count == 2:
        first = min_norm_pair(gramian[0, 0], gramian[0, 1], gramian[1, 1])
        shortest = torch.stack([first, 1 - first])
    else:
        shortest = min_norm_weights(gramian)
    pairs = torch.stack([gramian[i, j] for i, j in combinations(range(count), 2)])
    return torch.where((pairs > 0).all(), 1 / count, shortest)


def pareto_gradient(
    gradients: Sequence[Gradient], total: Gradient, gamma: float = 1.5, rescale: str = "tensor"
) -> list[Tensor]:
    """gamma max(1, |G| / |h|) h, with h the number of losses times their Pareto combination.

    Where h vanishes, as it does for opposite gradients, the answer is zero.

    :param gradients: One list of tensors a loss, all aligned.
    :param total: G, the gradient of the summed losses.
    :param gamma: The enlargement.
    :param rescale: Whether |.| is of each "tensor" or of all of them, the whole "encoder".

    >>> g = [[torch.tensor([1.0, 0.0])], [torch.tensor([-2.0, 2.0])]]
    >>> pareto_gradient(g, total=[torch.tensor([-1.0, 2.0])])
    [tensor([1.8605, 2.7908])]
    """
    weights = len(gradients) * pareto_weights(gradients)
    parts = [torch._foreach_mul(list(g), w) for w, g in zip(weights, gradients, strict=True)]
    combined = [sum_of(terms) for terms in zip(*parts, strict=True)]
    length = _norms(combined, rescale)
    # What cancels leaves rounding errors, which must not be enlarged to the length of G.
    vanishes = length <= 1e-6 * sum_of(_norms(part, rescale) for part in parts)
    ratio = _norms(total, rescale) / length.masked_fill(vanishes, 1)
    factors = (gamma * ratio.clamp(min=1)).masked_fill(vanishes, 0)
    return [f.to(h.dtype) * h for f, h in zip(factors.expand(len(combined)), combined, strict=True)]


def _norms(gradient: Gradient, rescale: str) -> Tensor:
    if rescale == "encoder":
        return flat_norm(gradient)
    return torch.stack([flat_norm([tensor]) for tensor in gradient])


class MMPareto(Method):
    """Combine each encoder's multimodal and unimodal gradient so that neither is opposed.

    One unimodal loss L_m a modality, of a head of its own, is added to L. In each encoder the
    gradients of L and L_m are summed where their cosine is positive; otherwise they are replaced
    by twice the shortest convex combination, restored to the length of the sum (never shortened).
    Everything is then enlarged by gamma. Fusion and heads keep the gradient of the summed losses.

    Two backward passes give all gradients, for any number of modalities. Parameters that several
    encoders share have the M + 1 losses as objectives, by the same rule, in M + 1 passes.

    Arguments:
        gamma: enlargement; the paper uses 1.5.
        rescale: "tensor", as the released code, or "encoder", as the paper's analysis.

    Departures: h = 0 beside a sum that is not zero gives zero (the released code gives NaN).
    Losses that other methods of a chain add count towards the multimodal objective.

    Source: Wei and Hu, ICML 2024, Algorithm 1; the order of magnitudes after the released code.

    >>> MMPareto(gamma=2.0)
    MMPareto(gamma=2.0, rescale='tensor')
    """

    category = "objective"
    fidelity = "official"
    heads = "own"
    per_loss_gradients = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {"gamma": (1.5, 1.0, 0.5, 3.0)}

    def __init__(self, *, gamma: float = 1.5, rescale: str = "tensor") -> None:
        super().__init__()
        self.gamma = number("gamma", gamma, above=0)
        self.rescale = choice("rescale", rescale, ("tensor", "encoder"))

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        return losses | {m: step.loss(logits) for m, logits in step.output.unimodal.items()}

    def gradients(self, update: Update) -> None:
        for owner in (*update.model.modalities, "shared"):
            total = update.gradient(owner)
            objectives = _objectives(update, owner) if total else []
            if len(objectives) > 1:  # else there is nothing to trade
                new = pareto_gradient(objectives, total, self.gamma, self.rescale)
                torch._foreach_copy_(total, new)


def _objectives(update: Update, owner: str) -> list[Gradient]:
    """The gradients of the multimodal objective and of the unimodal losses that reach `owner`."""
    modalities = update.model.modalities
    joint = [of[owner] for name, of in update.per_loss.items() if name not in modalities]
    reaching = modalities if owner == "shared" else (owner,)
    alone: list[Gradient] = [update.per_loss[m][owner] for m in reaching if m in update.per_loss]
    together = [sum_of(terms) for terms in zip(*joint, strict=True)]
    return [together, *alone] if together else [*alone]
