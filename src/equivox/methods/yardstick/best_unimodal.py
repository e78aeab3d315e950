"""Best unimodal: every modality alone, and the best of them answers (a yardstick)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.methods.yardstick.alone import Independent

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.task import Task


class BestUnimodal(Independent):
    """Train every modality alone and predict with the one that is best on validation data.

    After every epoch the mean of `task.correct` (for regression, minus the loss) of each modality's
    own head is measured. The
    prediction is that of the best modality among those that a batch has. `scores`, (modalities,),
    holds the last measurement.

    The number of epochs and which of them is kept are the training loop's: choose the epoch by the
    prediction on validation data, as for any other method.

    >>> BestUnimodal()
    BestUnimodal()
    """

    needs_validation = True
    scores: Tensor

    def setup(self, model: Multimodal, task: Task) -> Task:
        self.register_buffer("scores", torch.zeros(len(model.modalities)))
        return task

    def conclude(self, run: Run) -> None:
        rows = run.collect(
            run.validation or (),
            lambda o, b: {m: run.task.merit(said, b.target) for m, said in o.unimodal.items()},
        )
        self.scores.copy_(torch.stack([rows[m].mean() for m in run.model.modalities]))

    def predict(self, output: Output) -> Tensor:
        said = output.unimodal
        numbers = [output.model.modalities.index(m) for m in said]
        best = self.scores[numbers].argmax()
        return torch.stack(list(said.values())).index_select(0, best.view(1)).squeeze(0)
