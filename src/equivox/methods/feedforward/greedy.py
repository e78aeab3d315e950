"""Greedy: Characterizing and Overcoming the Greedy Nature of Multi-modal Learning (ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.arguments import choice, number
from equivox.functional.learning_speed import conditional_speeds, learning_speed
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.mmtm import MMTM, BranchMean, MMTMBlock

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.step import Step, Update
    from equivox.task import Task


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
        variant: "guided", or "random", the ablation: each step holds one modality's gates, or none.

    Departures: the released code averages the first branch's gates for both, and in evaluation too.
    Constant gates get a zero gradient: momentum and weight decay still move their weights.

    Raises ValueError for a fusion without known widths, and for a "dual" head on a network with
    blocks of its own that does not return `Fused(logits, {"branches": {modality: logits}})`.

    Source: Wu et al., ICML 2022.

    >>> Greedy(epsilon=0.05)
    Greedy(epsilon=0.05, window=5, starts=1, ratio=4.0, head='dual', variant='guided')
    """

    category = "feed-forward"
    fidelity = "official"
    replaces_fusion = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
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
        self.epsilon = number("epsilon", epsilon, least=0)
        self.window = number("window", window, least=1)
        self.starts = number("starts", starts, least=0)
        self.ratio = ratio
        self.head = choice("head", head, ("dual", "joint"))
        self.variant = choice("variant", variant, ("guided", "random"))

    def setup(self, model: Multimodal, task: Task) -> Task:
        if not _blocks(model):
            model.require("widths", "outputs")
            model.fusion = MMTM(model.widths, model.outputs, self.ratio, model.fusion)  # type: ignore[arg-type]
        if self.head == "dual" and isinstance(model.fusion, MMTM):
            fusion = model.fusion
            fusion.fusion = BranchMean(fusion.widths, fusion.outputs, fusion.pool)
        self.register_buffer("bypass", torch.zeros(len(model.modalities)))
        self.register_buffer("main", torch.zeros(len(model.modalities)))
        self.register_buffer("left", torch.zeros((), dtype=torch.long))
        return task

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
        return losses | {"joint": sum_of(step.loss(z) for z in extra["branches"].values())}

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
        apart = bdr.max() - bdr.min() > self.epsilon
        enters = apart & ~balancing & (update.epoch >= self.starts)
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
    own = [(*model.encoder_parameters(m), *model.branch_parameters(m)) for m in model.modalities]
    main = [[p for p in part if id(p) not in inside] for part in own]
    return bypass, main
