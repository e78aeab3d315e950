"""DropPathway: Audiovisual SlowFast Networks for Video Recognition (arXiv 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, names, number
from equivox.features import blanked, leaves
from equivox.functional.dropout import kept_pathways
from equivox.method import Method
from equivox.modules.lateral import Lateral

if TYPE_CHECKING:
    from equivox.features import Features
    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task


class DropPathway(Method):
    """Cut fast-learning modalities out of the fusion, each with probability p an update.

    In training f_m <- (1 - drop_m) f_m between encoder and fusion, drop_m = 1[u_m < p], with one
    u_m ~ U[0, 1) a modality for all samples of an update, equal on all ranks. So encoder m gets
    zero gradients in a share p of the updates. Nothing is rescaled; prediction keeps everything.
    Where nothing would be left of a sample, one of its modalities stays, each equally likely.

    Arguments:
        p: the paper uses 0.8 on Kinetics, and 0.5 on smaller sets.
        modalities: those that may be dropped, audio in the paper; or "auto", in every epoch the one
            that alone scored highest while training the epoch before, and none in the first.
        scope: "fusion" cuts the features (the paper's text); "lateral" cuts the `Lateral`
            connections of the fusion alone, the head sees all features (the authors' code).

    Raises ValueError for a p outside [0, 1], an unknown modality, or "lateral" without `Lateral`.

    Departures: micro-batches of an update share its draw, and so do ranks; in the code every
    process draws its own. Zeros stand for a dropped feature, whatever the model's blank is.

    Source: Xiao et al., arXiv 2001.08740. "auto" is ours.

    >>> DropPathway(modalities=["audio"])
    DropPathway(p=0.8, modalities=['audio'], scope='fusion')
    """

    category = "feed-forward"
    fidelity = "official"
    search_space: ClassVar[Mapping[str, Any]] = {"p": (0.8, 0.5, 0.2)}
    neutral: ClassVar[Mapping[str, Any]] = {"p": 0.0}
    draws: Tensor
    droppable: Tensor
    scores: Tensor  # of this epoch so far: sums of the updates' means, and how many

    def __init__(
        self, *, p: float = 0.8, modalities: Sequence[str] | str = "auto", scope: str = "fusion"
    ) -> None:
        super().__init__()
        if isinstance(modalities, str) and modalities != "auto":
            raise ValueError(
                f'`modalities` should be a list of names or "auto". Found `{modalities!r}`. '
                f"Write `[{modalities!r}]`."
            )
        self.p = number("p", p, least=0, most=1)
        self.modalities = modalities
        self.scope = choice("scope", scope, ("fusion", "lateral"))

    def setup(self, model: Multimodal, task: Task) -> Task:
        named = () if self.modalities == "auto" else self.modalities
        names("modalities", named, model.modalities)
        if self.scope == "lateral" and not _laterals(model):
            raise ValueError(
                '`scope="lateral"` cuts the `Lateral` connections of the fusion. Found none. '
                'Pass lateral terms through `Lateral(modality)`, or use `scope="fusion"`.'
            )
        self.register_buffer("droppable", torch.tensor([m in named for m in model.modalities]))
        self.register_buffer("draws", torch.rand(len(model.modalities)))
        self.register_buffer("scores", torch.zeros(2, len(model.modalities)))
        self._cut(model)
        return task

    def prepare(self, run: Run) -> None:
        if self.modalities == "auto":
            total, count = self.scores
            best = (total / count.clamp(min=1)).argmax()
            places = torch.arange(len(total), device=total.device)
            self.droppable.copy_((places == best) & (count > 0))
            self.scores.zero_()
            self._cut(run.model)

    def features(self, features: Features, step: Step) -> Features:
        if self.scope == "lateral":
            return features
        there = step.there()
        if there is None:
            rows = len(leaves(features)[0])
            there = self.draws.new_ones(rows, len(features), dtype=torch.bool)
        kept = kept_pathways(self.draws, self.p, self.droppable, there) | ~there
        columns = zip(step.model.modalities, kept.unbind(1), strict=True)
        return {m: blanked(features[m], rows) for m, rows in columns if m in features}

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if self.modalities == "auto":
            with torch.no_grad():
                step.note("score", {m: step.score(z) for m, z in step.output.split.items()})
        return losses

    def updated(self, update: Update) -> None:
        fresh = torch.rand(
            self.draws.shape, generator=update.generator, device=update.generator.device
        )
        self.draws.copy_(fresh)
        self._cut(update.model)
        if self.modalities == "auto":
            for modality, score in update.mean("score").items():
                self.scores[:, update.model.modalities.index(modality)] += torch.stack(
                    [score, torch.ones_like(score)]
                )

    def _cut(self, model: Multimodal) -> None:
        kept = (self.draws >= self.p) | ~self.droppable
        for lateral in _laterals(model):
            lateral.kept.copy_(kept[model.modalities.index(lateral.modality)])


def _laterals(model: Multimodal) -> list[Lateral]:
    return [part for part in model.fusion.modules() if isinstance(part, Lateral)]
