"""Findings of the checks of the data and the set-up, and what the checks look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.diagnosis.tables import Split
from equivox.model import Multimodal
from equivox.task import Task

if TYPE_CHECKING:
    from equivox.diagnosis.metric import Estimate

LISTED = 10
"""So many numbers of samples are listed."""

SPOILT = 0.05
"""The share of samples that are spoilt from which on it is no longer a few."""

SEVERITIES = ("fault", "warning", "fine")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes: `code` of the check; `modality`, None where it concerns all or none; `severity`,
    "fault", "warning" or "fine"; `what` was found; `cure`, what to do, empty where it is fine;
    `count` of the samples, columns or parameters concerned; `samples`, the numbers of the first
    ones; `pairs`, for duplicates, the numbers in the two splits; `made`, False where there was
    nothing to look at, which is no fault, but says nothing good either.
    """

    code: str
    modality: str | None
    severity: str
    what: str
    cure: str = ""
    count: int = 0
    samples: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    made: bool = True

    def to_json(self) -> dict[str, Any]:
        """The finding in plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """What the checks look at."""

    model: Multimodal
    task: Task
    optimizer: torch.optim.Optimizer | None
    train: Split
    validation: Split | None
    test: Split
    alone: Mapping[str, Estimate]
    chance: float | None

    @property
    def splits(self) -> list[Split]:
        """All splits that were given."""
        return [s for s in (self.train, self.validation, self.test) if s is not None]


def skipped(code: str, found: str) -> Finding:
    return Finding(code, None, "fine", f"Not looked at: found {found}.", made=False)


def first(numbers: Tensor) -> tuple[int, ...]:
    return tuple(int(x) for x in numbers[:LISTED].tolist())


def listed(numbers: Sequence[int], count: int) -> str:
    return ", ".join(map(str, numbers)) + (", …" if count > len(numbers) else "")
