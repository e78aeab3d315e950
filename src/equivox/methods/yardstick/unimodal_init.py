"""Unimodal initialisation: encoders trained alone, then the head or everything (a yardstick)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from equivox.arguments import number
from equivox.method import Batch, Method
from equivox.methods.yardstick.alone import take_encoders

if TYPE_CHECKING:
    from equivox.run import Run


class UnimodalInit(Method):
    """Train every encoder alone first; then the fusion on frozen encoders, or everything.

    Before the first epoch each encoder is trained with a linear head of its own, which is thrown
    away, by a copy of the optimizer, from the weights that it has. With validation data it keeps
    its best epoch.

    Arguments:
        freeze: True trains the fusion alone, on encoders in eval mode; False trains everything.
        alone_epochs: of the training alone. There should be enough for the slowest modality to
            converge.

    Raises ValueError for negative `alone_epochs`.

    >>> UnimodalInit(freeze=False, alone_epochs=30)
    UnimodalInit(freeze=False, alone_epochs=30)
    """

    category = "yardstick"
    ingredients = frozenset({"unimodal initialisation", "extra epochs"})
    search_space: ClassVar[Mapping[str, Any]] = {"freeze": (True, False)}
    neutral: ClassVar[Mapping[str, Any]] = {"freeze": False, "alone_epochs": 0}
    brief: ClassVar[Mapping[str, Any]] = {"alone_epochs": 1}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "the training alone takes the loader's batches one by one"
    }

    def __init__(self, *, freeze: bool = True, alone_epochs: int = 20) -> None:
        super().__init__()
        self.freeze = freeze
        self.alone_epochs = number("alone_epochs", alone_epochs, least=0)
        self.leaves_unused = freeze
        self.idle = frozenset({"encoders"} if freeze else ())

    def prepare(self, run: Run) -> None:
        if run.number == 0 and self.alone_epochs:
            take_encoders(run.model, run, self.alone_epochs)

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        for batch in batches:
            yield batch.with_(learn=frozenset()) if self.freeze else batch
