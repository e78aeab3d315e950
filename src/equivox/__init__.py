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

# ruff: noqa: F401
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equivox import data, functional, methods
    from equivox.balancer import Balancer
    from equivox.diagnosis.diagnose import Diagnosis, diagnose
    from equivox.fusion import Attention, Concat, FiLM, Fused, Gated, SharedHead, Sum
    from equivox.method import Batch, Chain, Method
    from equivox.methods import *  # noqa: F403
    from equivox.mmtm import MMTM
    from equivox.model import Multimodal, Output
    from equivox.task import Classification, Dense, MultiLabel, Regression, Task

__version__ = "0.1.0.dev0"

_HOMES = {
    "equivox.balancer": ("Balancer",),
    "equivox.diagnosis.diagnose": ("Diagnosis", "diagnose"),
    "equivox.fusion": ("Attention", "Concat", "FiLM", "Fused", "Gated", "SharedHead", "Sum"),
    "equivox.method": ("Batch", "Chain", "Method"),
    "equivox.mmtm": ("MMTM",),
    "equivox.model": ("Multimodal", "Output"),
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
