"""UMT: On Uni-Modal Feature Learning in Supervised Multi-Modal Learning (ICML 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.arguments import choice, number, span
from equivox.features import Feature, padding, values
from equivox.functional.schedules import within
from equivox.method import Method
from equivox.methods.yardstick.alone import frozen_copy, take_encoders
from equivox.model import Multimodal

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task

DISTANCES = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


def feature_distance(
    student: Feature, teacher: Feature, distance: str = "mse"
) -> Float[Tensor, ""]:
    """The mean distance over all entries that are not padding, in float32.

    >>> f = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    >>> feature_distance(f, torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
    tensor(1.5000)
    """
    with torch.autocast(values(student).device.type, enabled=False):
        ours, theirs = values(student).float(), values(teacher).detach().float()
        if (mask := padding(student)) is None:
            return DISTANCES[distance](ours, theirs)
        each = DISTANCES[distance](ours, theirs, reduction="none").flatten(2).mean(-1)
        return each.masked_fill(mask, 0).sum() / (~mask).sum().clamp(min=1)


class UMT(Method):
    """Distil unimodal teachers into the encoders while the fused model is trained.

    L = lambda_task L_task + lambda_distill sum_m MSE(f_m, t_m), with f_m the feature of modality m
    that enters the fusion and t_m that of its teacher, for the same (augmented) input. The teachers
    are the encoders trained alone with linear heads before the first epoch, each at its best epoch
    if there are validation data; from then on they are frozen and in eval mode.

    Arguments:
        lambda_task: weight of the task's loss, 1 in the paper.
        lambda_distill: weight of the distillation; 50 on VGGSound. The right value depends on the
            scale of the features. With 0 no teacher is trained.
        distance: "mse", "l1" or "smooth_l1".
        init: the students start from "scratch" or from the "teacher".
        teacher_epochs: epochs of the teachers; with 0 they are what `method.teachers` holds, for
            example after `load_state_dict`: at first, a copy of the model.
        starts, ends: first and last epoch, counted from 0, with distillation.
        fraction: rho in (0, 1) replaces both weights: L = (1 - rho) L_task + rho L_task* D / D*,
            where * means held constant and D is the sum of distances. Not of the paper.

    Departures: teachers start from the students' initial weights, so that their features are
    comparable. A model's rows with a missing modality add nothing to the gradient.

    Source: Du et al., ICML 2023; no code was released. The default of `lambda_distill` is that of a
    re-implementation.

    >>> UMT(lambda_distill=50.0)
    UMT(lambda_task=1.0, lambda_distill=50.0, distance='mse', init='scratch', ...)
    """

    category = "objective"
    fidelity = "reconstruction"
    ingredients = frozenset({"extra epochs"})
    search_space: ClassVar[Mapping[str, Any]] = {"lambda_distill": (50.0, 1.0, 3.0, 10.0, 30.0)}
    neutral: ClassVar[Mapping[str, Any]] = {"lambda_distill": 0.0}
    brief: ClassVar[Mapping[str, Any]] = {"teacher_epochs": 1}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "the teachers take the loader's batches one by one"
    }

    def __init__(
        self,
        *,
        lambda_task: float = 1.0,
        lambda_distill: float = 10.0,
        distance: str = "mse",
        init: str = "scratch",
        teacher_epochs: int = 20,
        starts: int = 0,
        ends: int | None = None,
        fraction: float | None = None,
    ) -> None:
        super().__init__()
        self.lambda_task = number("lambda_task", lambda_task, least=0)
        self.lambda_distill = number("lambda_distill", lambda_distill, least=0)
        self.distance = choice("distance", distance, tuple(DISTANCES))
        self.init = choice("init", init, ("scratch", "teacher"))
        self.teacher_epochs = number("teacher_epochs", teacher_epochs, least=0)
        self.starts, self.ends = span(starts, ends)
        self.fraction = number("fraction", fraction, above=0, below=1)

    def setup(self, model: Multimodal, task: Task) -> Task:
        # A whole model: what an encoder is given may be decided by the network around it.
        self.teachers = cast("Multimodal", frozen_copy(model))
        return task

    def prepare(self, run: Run) -> None:
        if run.number > 0 or not self.lambda_distill:
            return
        if self.teacher_epochs:
            take_encoders(self.teachers, run, self.teacher_epochs)
        if self.init == "teacher":
            run.model.encoders.load_state_dict(self.teachers.encoders.state_dict())

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        if not self.lambda_distill or not within(step.epoch, self.starts, self.ends):
            task = self.lambda_task if self.fraction is None else 1.0
            return losses | {"joint": task * losses["joint"]}
        with torch.no_grad():
            teachers = self.teachers.encode(step.batch.inputs)
        distances = [
            feature_distance(f, teachers[m], self.distance) for m, f in step.output.features.items()
        ]
        return losses | self._weighted(losses["joint"], torch.stack(distances).sum())

    def _weighted(self, joint: Tensor, distance: Tensor) -> dict[str, Tensor]:
        if self.fraction is None:
            task, distillation = self.lambda_task, self.lambda_distill * distance
        else:
            ratio = joint.detach() / distance.detach().clamp(min=1e-12)
            task, distillation = 1 - self.fraction, self.fraction * ratio * distance
        return {"joint": task * joint, "distillation": distillation}
