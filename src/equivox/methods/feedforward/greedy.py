"""Greedy: Characterizing and Overcoming the Greedy Nature of Multi-modal Learning (ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.functional.gradients import flat_norm
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.mmtm import MMTM, BranchMean, MMTMBlock

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.step import Step, Update
    from equivox.task import Task


def learning_speed(parameters: Sequence[nn.Parameter]) -> Tensor:
    """mu(P) = sum |gradient|² / sum |parameter|² over a set; no gradient counts as zero."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    size = flat_norm([p.detach() for p in parameters]).square()
    moved = flat_norm(gradients).square() if gradients else torch.zeros_like(size)
    return torch.where(size > 0, moved / size.where(size > 0, 1), 0)


def conditional_speeds(
    bypass: Float[Tensor, " modalities"], main: Float[Tensor, " modalities"]
) -> Float[Tensor, " modalities"]:
    """BDR_m = log10(A_bypass_m / A_main_m): how fast m learns from the others, to its own speed.

    >>> conditional_speeds(torch.tensor([0.02, 0.005]), torch.tensor([0.01, 0.01]))
    tensor([ 0.3010, -0.3010])
    """
    least = torch.finfo(main.dtype).tiny
    return bypass.clamp(min=least).log10() - main.clamp(min=least).log10()


def conditional_utilisation(full: Tensor, without: Tensor) -> Tensor:
    """u(m_1 | m_0) = (A(y_0) - A(y'_0)) / A(y_0): what branch 0 loses without modality 1's squeeze.

    :param full: A branch's accuracy.
    :param without: The same with the other modalities' squeezed features at their training mean
        (`MMTMBlock.gates(features, squeezed)`).

    >>> conditional_utilisation(torch.tensor(0.8), torch.tensor(0.6))
    tensor(0.2500)
    """
    return torch.where(full > 0, (full - without) / full.where(full > 0, 1), 0)


class Greedy(Method):
    """Where one modality learns mostly through the others, cut that way for a few steps.

    Every step compares how fast the gates of a branch learn with how fast the branch itself does:
    BDR_m = log10(A_bypass_m / A_main_m), of sums over steps of |gradient|² / |parameters|². When
    max BDR - min BDR > epsilon, the modality c with the largest leans too much on the others: for
    the next `window` steps its gates are constants, the averages of all they were. Nothing is
    accumulated meanwhile, at least one regular step follows, and gradients are never changed.

    The branches meet in `MMTMBlock`s. A model that has none gets one on its features.

    Arguments:
        epsilon: tolerated difference of the speeds, in decades; 0.01, tuned in the paper.
        window: Q, updates with constant gates; 5.
        starts: first epoch, counted from 0, that may end in re-balancing; 1.
        ratio: bottleneck of the block that it puts in; 4.
        head: "dual", the paper's: each branch has its own logits and loss, the prediction is their
            mean; or "joint": the model's own fusion reads the gated features.
        variant: "guided", or "random", the ablation: each step constant gates for one of the
            modalities, or none.

    Departures: the released code averages the first branch's gates for both, and goes on averaging
    in evaluation. More than two modalities: largest against smallest speed. The gates that stand
    still get a zero gradient, so momentum and weight decay, which the authors do not use, still
    move their weights.

    Raises ValueError for a fusion without known widths, and for a "dual" head on a network with
    blocks of its own that does not return `Fused(logits, {"branches": {modality: logits}})`.

    Source: Wu et al., ICML 2022.

    >>> Greedy(epsilon=0.05)
    Greedy(epsilon=0.05, window=5, starts=1, ratio=4.0, head='dual', variant='guided')
    """

    category = "feed-forward"
    replaces_fusion = True
    ingredients: ClassVar[frozenset[str]] = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "epsilon": (0.01, 0.001, 0.1),
        "window": (5, 20),
        "head": ("dual", "joint"),
    }
    brief: ClassVar[Mapping[str, Any]] = {"starts": 0, "window": 1}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "The averages of the gates hold the forwards made so far.",
    }

    bypass: Tensor
    main: Tensor
    left: Tensor

    def __init__(
        self,
        *,
        epsilon: float = 0.01,
        window: int = 5,
        starts: int = 1,
        ratio: float = 4.0,
        head: str = "dual",
        variant: str = "guided",
    ) -> None:
        super().__init__()
        if epsilon < 0 or window < 1:
            raise ValueError(
                "`epsilon` should be zero or more and `window` positive. Found "
                f"`epsilon = {epsilon}`, `window = {window}`."
            )
        if head not in ("dual", "joint"):
            raise ValueError(f'`head` should be "dual" or "joint". Found `{head!r}`.')
        if variant not in ("guided", "random"):
            raise ValueError(f'`variant` should be "guided" or "random". Found `{variant!r}`.')
        self.epsilon = epsilon
        self.window = window
        self.starts = starts
        self.ratio = ratio
        self.head = head
        self.variant = variant

    def setup(self, model: Multimodal, task: Task) -> Task:
        if not _blocks(model):
            model.fusion = self._around(model)
        if self.head == "dual" and isinstance(model.fusion, MMTM):
            inner = model.fusion
            inner.fusion = BranchMean(inner.widths, inner.outputs, inner.pool)
        self.register_buffer("bypass", torch.zeros(len(model.modalities)))
        self.register_buffer("main", torch.zeros(len(model.modalities)))
        self.register_buffer("left", torch.zeros((), dtype=torch.long))
        return task

    def _around(self, model: Multimodal) -> MMTM:
        if not model.widths or not model.outputs:
            raise ValueError(
                "`Greedy` puts an MMTM block on the features and needs their widths. Found a "
                "fusion that does not declare them. Pass `Multimodal(..., example=inputs)`."
            )
        return MMTM(model.widths, model.outputs, self.ratio, model.fusion)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if self.head == "joint":
            return losses
        extra = step.output.extra
        if not isinstance(extra, Mapping) or "branches" not in extra:
            raise ValueError(
                'A "dual" head trains every branch by its own logits. Found a fusion that does not '
                'return them. Return `Fused(logits, {"branches": logits_by_modality})`, or use '
                '`head="joint"`.'
            )
        each = [step.loss(z) for z in extra["branches"].values()]
        return losses | {"joint": sum_of(each)}

    def gradients(self, update: Update) -> None:
        blocks = _blocks(update.model)
        if self.variant == "guided":
            held = self._guided(update, blocks)
        else:
            count = len(self.main)
            draw = torch.rand((), generator=update.generator, device=update.generator.device)
            held = (draw * (count + 1)).long() - 1 if update.epoch >= self.starts else self.left - 1
        for block in blocks:
            block.held.copy_(held)

    def _guided(self, update: Update, blocks: Sequence[MMTMBlock]) -> Tensor:
        """The modality whose gates the next step holds, or -1; counts and accumulates."""
        balancing = self.left > 0
        for speeds, parameters in zip((self.bypass, self.main), _sets(update.model), strict=True):
            now = torch.stack([learning_speed(part).to(speeds) for part in parameters])
            speeds += torch.where(balancing, 0, now)
        bdr = conditional_speeds(self.bypass, self.main)
        enters = (bdr.max() - bdr.min() > self.epsilon) & ~balancing
        enters = enters & (update.epoch >= self.starts)
        self.left.copy_(torch.where(enters, self.window, (self.left - 1).clamp(min=0)))
        held = torch.where(enters, bdr.argmax(), blocks[0].held)
        return torch.where(self.left > 0, held, -1)


def _blocks(model: Multimodal) -> list[MMTMBlock]:
    return [part for part in model.fusion.modules() if isinstance(part, MMTMBlock)]


def _sets(model: Multimodal) -> tuple[list[list[nn.Parameter]], list[list[nn.Parameter]]]:
    """The bypass and the main parameters of every branch."""
    blocks = _blocks(model)
    bypass = [[p for block in blocks for p in block.bypass(m)] for m in model.modalities]
    inside = {id(p) for part in bypass for p in part}
    main = [
        [
            p
            for p in (*model.encoder_parameters(m), *model.branch_parameters(m))
            if id(p) not in inside
        ]
        for m in model.modalities
    ]
    return bypass, main
