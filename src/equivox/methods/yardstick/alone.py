"""Modalities that train alone: the shared piece of the yardsticks and of the methods with teachers.

Nothing here is registered as a method.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from equivox.arguments import choice
from equivox.method import Batch, Method

if TYPE_CHECKING:
    from equivox.model import Output
    from equivox.run import Fork, Run
    from equivox.step import Step

HEADS = ("own", "split")


class Alone(Method):
    """Train and predict one modality by itself; in training the other encoders do not run.

    Arguments:
        modality: its name.
        heads: "own", a linear head of its own; "split", its share of the fused logits, so that its
            part of the fusion learns.

    Raises ValueError for other `heads`.

    >>> Alone(modality="audio")
    Alone(modality='audio', heads='own')
    """

    category = "yardstick"
    leaves_unused = True
    drops_joint = True

    def __init__(self, *, modality: str, heads: str = "own") -> None:
        super().__init__()
        self.modality = modality
        self.heads = choice("heads", heads, HEADS)

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        for batch in batches:
            if self.modality in batch.inputs:
                yield batch.only(self.modality)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        return {self.modality: step.loss(self.predict(step.output))}

    def predict(self, output: Output) -> Tensor:
        if self.modality not in output.features:
            output.features = output.model.completed(output.features)
        said = output.unimodal if self.heads == "own" else output.split
        return said[self.modality]


class Independent(Method):
    """Train every modality from its own head's loss alone; the fusion is idle.

    The sum of unimodal losses over disjoint encoders is as many independent trainings. Parameters
    that several encoders share learn from all of them, and clipping by the norm of all gradients
    couples them.
    """

    category = "yardstick"
    heads = "own"
    leaves_unused = True
    drops_joint = True
    idle = frozenset({"fusion"})
    ingredients = frozenset({"unimodal losses", "inference rule", "extra parameters"})

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        others = {name: loss for name, loss in losses.items() if name != "joint"}
        return others | unimodal_losses(step, step.output.unimodal)


def unimodal_losses(step: Step, logits: dict[str, Tensor]) -> dict[str, Tensor]:
    """The task's loss of each modality's logits, by its name."""
    return {modality: step.loss(said) for modality, said in logits.items()}


def trained_alone(run: Run, epochs: int) -> Iterator[tuple[str, Fork]]:
    """Every modality trained alone, one after another, from the weights that the model has now.

    With validation data each has the weights of its best epoch. The model in training, its
    optimizer and the random state are untouched.
    """
    for modality in run.model.modalities:
        fork = run.fork(Alone(modality=modality))
        key = {"alone": modality, "epochs": epochs}
        fork.balancer.model.load_state_dict(run.recalled(key, partial(_fitted, fork, run, epochs)))
        yield modality, fork


def _fitted(fork: Fork, run: Run, epochs: int) -> dict[str, Any]:
    fork.fit(run.loader, epochs, run.validation)
    return fork.balancer.model.state_dict()


def take_encoders(model: nn.Module, run: Run, epochs: int) -> None:
    """Give the encoders of `model`, a copy of the run's or itself, the weights trained alone."""
    trained = {
        modality: copy.deepcopy(fork.balancer.model.encoders[modality].state_dict())
        for modality, fork in trained_alone(run, epochs)
    }
    for modality, weights in trained.items():
        model.get_submodule(f"encoders.{modality}").load_state_dict(weights)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that never learns, in eval mode.

    Its floating buffers become frozen parameters under the same names, for data-parallel wrappers
    send buffers again at every forward.
    """
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    for part in frozen.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_floating_point() and name not in part._non_persistent_buffers_set:
                del part._buffers[name]
                part.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
    for parameter in frozen.parameters():
        parameter.grad = None
    return frozen
