"""Best unimodal: every modality alone, and the best of them answers (a yardstick)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivox.methods.held_out import unimodal_merits
from equivox.methods.yardstick.alone import Independent

if TYPE_CHECKING:
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.task import Task


class BestUnimodal(Independent):
    """Train every modality alone and predict with the one that is best on validation data.

    After every epoch the mean of `task.merit` of each modality's own head is measured. The
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
        self.scores.copy_(unimodal_merits(run))

    def predict(self, output: Output) -> Tensor:
        said = output.unimodal
        numbers = [output.model.modalities.index(m) for m in said]
        best = self.scores[numbers].argmax()
        return torch.stack(list(said.values())).index_select(0, best.view(1)).squeeze(0)
