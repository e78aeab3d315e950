"""equivox: find out which modality a multimodal model neglects, and cure it during training.

>>> import torch
>>> import equivox as ev
>>> encoders = {"audio": torch.nn.Linear(8, 4), "video": torch.nn.Linear(6, 4)}
>>> model = ev.Multimodal(encoders, ev.Concat({"audio": 4, "video": 4}, 3))
>>> balancer = ev.Balancer(model, ev.OGMGE(alpha=0.3), task=ev.Classification())
>>> optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.01))
>>> loader = [({"audio": torch.ones(5, 8), "video": torch.ones(5, 6)}, torch.arange(5) % 3)]
>>> for inputs, target in balancer.epoch(loader):
...     loss = balancer(inputs, target)
...     loss.backward()
...     optimizer.step()
...     optimizer.zero_grad()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # "as" exports a name
    from equivox import data as data
    from equivox import functional as functional
    from equivox import methods as methods
    from equivox import testing as testing
    from equivox.balancer import Balancer as Balancer
    from equivox.diagnosis.diagnose import Diagnosis as Diagnosis
    from equivox.diagnosis.diagnose import diagnose as diagnose
    from equivox.fusion import Attention as Attention
    from equivox.fusion import Concat as Concat
    from equivox.fusion import FiLM as FiLM
    from equivox.fusion import Fused as Fused
    from equivox.fusion import Fusion as Fusion
    from equivox.fusion import Gated as Gated
    from equivox.fusion import SharedHead as SharedHead
    from equivox.fusion import Sum as Sum
    from equivox.method import Batch as Batch
    from equivox.method import Chain as Chain
    from equivox.method import Method as Method
    from equivox.methods import *  # noqa: F403
    from equivox.mmtm import MMTM as MMTM
    from equivox.model import Multimodal as Multimodal
    from equivox.model import Output as Output
    from equivox.run import Run as Run
    from equivox.step import Step as Step
    from equivox.step import Update as Update
    from equivox.task import Classification as Classification
    from equivox.task import Dense as Dense
    from equivox.task import MultiLabel as MultiLabel
    from equivox.task import Regression as Regression
    from equivox.task import Task as Task

__version__ = "0.1.0.dev0"

_HOMES = {
    "equivox.balancer": ("Balancer",),
    "equivox.diagnosis.diagnose": ("Diagnosis", "diagnose"),
    "equivox.fusion": (
        "Attention",
        "Concat",
        "FiLM",
        "Fused",
        "Fusion",
        "Gated",
        "SharedHead",
        "Sum",
    ),
    "equivox.method": ("Batch", "Chain", "Method"),
    "equivox.mmtm": ("MMTM",),
    "equivox.model": ("Multimodal", "Output"),
    "equivox.run": ("Run",),
    "equivox.step": ("Step", "Update"),
    "equivox.task": ("Classification", "Dense", "MultiLabel", "Regression", "Task"),
}
_PACKAGES = ("data", "functional", "methods", "testing")


def __getattr__(name: str) -> Any:
    """Imported where first used: the command line starts, and finds faults, without torch."""
    if name in _PACKAGES:
        return import_module(f"equivox.{name}")
    home = next((home for home, names in _HOMES.items() if name in names), "equivox.methods")
    if home == "equivox.methods" and not name[:1].isupper():  # a module, Python looks for it next
        raise AttributeError(f"`equivox` has no attribute `{name}`.")
    module = import_module(home)
    if home == "equivox.methods" and name not in module.__all__:
        raise AttributeError(f"`equivox` has no attribute `{name}`.")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    methods = import_module("equivox.methods")
    names = (name for names in _HOMES.values() for name in names)
    return sorted({*globals(), *names, *_PACKAGES, *methods.__all__})
