"""How far a training is, and everything else that resuming it exactly needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.randomness import (
    State,
    from_json,
    random_state,
    set_random_state,
    state_of,
    text_of,
    to_json,
)

if TYPE_CHECKING:
    from equivox.balancer import Balancer


@dataclass
class Pass:
    """One pass over a loader: the random state at its start and before its last fetch."""

    start: State
    last: State
    fetched: int = 0

    def to_json(self) -> dict[str, Any]:
        """The pass in plain values."""
        return {
            "start": to_json(self.start),
            "last": to_json(self.last),
            "fetched": self.fetched,
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Pass:
        """The pass that `to_json` wrote."""
        return Pass(from_json(plain["start"]), from_json(plain["last"]), plain["fetched"])


@dataclass
class Progress:
    """The counters of a training, the passes of its epoch, and loaded random states.

    Attributes: `epoch` from 0; `forwards`, the training forwards of this epoch; `updates` in all;
    `started` and `finished` tell whether the epoch has begun and ended; `loader` is that of the
    epoch; `random` is the state of a checkpoint that the next epoch has still to set.
    """

    epoch: int = 0
    forwards: int = 0
    updates: int = 0
    started: bool = False
    finished: bool = False
    passes: list[Pass] = field(default_factory=list)
    loader: Any = None
    random: State | None = None
    generators: dict[str, Tensor] = field(default_factory=dict)

    def begin(self, loader: Any) -> list[Pass]:
        """Enter an epoch: the next one, or that of a checkpoint, whose passes are returned."""
        planned = self.passes if self.resuming else []
        if not self.resuming:
            if self.started:
                self.epoch += 1
            self.forwards = 0
        if self.random is not None and not planned:
            set_random_state(self.random, loader)
            self.random = None
        self.started, self.finished, self.loader, self.passes = True, False, loader, []
        return planned

    @property
    def resuming(self) -> bool:
        """Whether a checkpoint in the middle of an epoch was loaded and has not been resumed."""
        return self.random is not None and self.started and not self.finished

    def replayed(self) -> None:
        """The batches of the checkpoint have been fetched again: go on from its random state."""
        if self.random is not None:
            set_random_state(self.random)  # the loader's own generators have moved by themselves
            self.random = None

    def restore(self, generator: torch.Generator) -> None:
        """Give the method's generator the state of the checkpoint, if there is one."""
        if (state := self.generators.pop(str(generator.device), None)) is not None:
            generator.set_state(state)

    def to_json(self, generators: Mapping[torch.device, torch.Generator]) -> dict[str, Any]:
        """The progress in plain JSON values."""
        states = self.generators | {str(d): g.get_state() for d, g in generators.items()}
        now = random_state(self.loader) if self.random is None else self.random
        return {
            "epoch": self.epoch,
            "forwards": self.forwards,
            "updates": self.updates,
            "started": self.started,
            "finished": self.finished,
            "passes": [] if self.finished else [p.to_json() for p in self.passes],
            "random": to_json(now),
            "generators": {device: text_of(state) for device, state in states.items()},
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Progress:
        """The progress that `to_json` wrote."""
        counters = {k: plain[k] for k in ("epoch", "forwards", "updates", "started", "finished")}
        return Progress(
            **counters,
            passes=[Pass.from_json(p) for p in plain["passes"]],
            random=from_json(plain["random"]),
            generators={device: state_of(text) for device, text in plain["generators"].items()},
        )


def written(facts: Mapping[str, Any]) -> Tensor:
    """Facts as the bytes of JSON in a tensor, which is what a `state_dict` can hold."""
    return torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8).clone()


def read(state: Any) -> dict[str, Any]:
    """The facts that `written` wrote; ValueError for anything else."""
    try:
        facts: dict[str, Any] = json.loads(bytes(state.tolist()))
        return facts
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            "A balancer's state should hold its progress. Found none that can be read. The "
            "checkpoint is damaged, or it is not a balancer's: load the model with "
            "`balancer.model.load_state_dict`."
        ) from error


def check_state(state: Any, balancer: Balancer) -> None:
    """Refuse the checkpoint of another method or of other modalities."""
    facts = read(state)
    expected = {
        "method": type(balancer.method).__name__,
        "modalities": list(balancer.model.modalities),
    }
    for what, here in expected.items():
        if facts.get(what) != here:
            raise ValueError(
                f"A checkpoint should be of the same {what}. Found `{facts.get(what)}` in the "
                f"checkpoint and `{here}` here."
            )
