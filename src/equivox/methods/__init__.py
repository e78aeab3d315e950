"""Every method by its name, those of other packages included.

A package registers a method of its own in its `pyproject.toml`:

    [project.entry-points."equivox.methods"]
    damp = "my_package.damp:Damp"

>>> get("ogm_ge")(alpha=0.3)
OGMGE(alpha=0.3, ...)
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from equivox.errors import nearest
from equivox.method import Method
from equivox.methods.data.dyncim import DynCIM
from equivox.methods.data.smv import SMV
from equivox.methods.feedforward.amco import AMCo
from equivox.methods.feedforward.drop_pathway import DropPathway
from equivox.methods.feedforward.greedy import Greedy
from equivox.methods.feedforward.mla import MLA
from equivox.methods.feedforward.opm import OPM
from equivox.methods.objective.cml import CML
from equivox.methods.objective.crmt import CRMT
from equivox.methods.objective.gradient_blending import GradientBlending
from equivox.methods.objective.lfm import LFM
from equivox.methods.objective.mbsd import MBSD
from equivox.methods.objective.mmcosine import MMCosine
from equivox.methods.objective.mmpareto import MMPareto
from equivox.methods.objective.olm import OLM
from equivox.methods.objective.ume import UME
from equivox.methods.objective.umt import UMT
from equivox.methods.optimization.agm import AGM
from equivox.methods.optimization.amss import AMSS
from equivox.methods.optimization.cggm import CGGM
from equivox.methods.optimization.dgl import DGL
from equivox.methods.optimization.drl import DRL
from equivox.methods.optimization.inforeg import InfoReg
from equivox.methods.optimization.mslr import MSLR
from equivox.methods.optimization.multi_loss import MultiLoss
from equivox.methods.optimization.ogm_ge import OGMGE
from equivox.methods.optimization.pmr import PMR
from equivox.methods.optimization.prioritise import Prioritise
from equivox.methods.optimization.reconboost import ReconBoost
from equivox.methods.optimization.sustained_boosting import SustainedBoosting
from equivox.methods.yardstick.best_unimodal import BestUnimodal
from equivox.methods.yardstick.ensemble import Ensemble
from equivox.methods.yardstick.joint import Joint
from equivox.methods.yardstick.modality_dropout import ModalityDropout
from equivox.methods.yardstick.modality_lr import ModalityLR
from equivox.methods.yardstick.unimodal_init import UnimodalInit
from equivox.methods.yardstick.unimodal_losses import UnimodalLosses

__all__ = [
    "AGM",
    "AMSS",
    "CGGM",
    "CML",
    "CRMT",
    "DGL",
    "DRL",
    "LFM",
    "MBSD",
    "MLA",
    "MSLR",
    "OGMGE",
    "OLM",
    "OPM",
    "PMR",
    "SMV",
    "UME",
    "UMT",
    "AMCo",
    "BestUnimodal",
    "DropPathway",
    "DynCIM",
    "Ensemble",
    "GradientBlending",
    "Greedy",
    "InfoReg",
    "Joint",
    "MMCosine",
    "MMPareto",
    "ModalityDropout",
    "ModalityLR",
    "MultiLoss",
    "Prioritise",
    "ReconBoost",
    "SustainedBoosting",
    "UnimodalInit",
    "UnimodalLosses",
]

_OWN: dict[str, type[Method]] = {
    found.__module__.rpartition(".")[2]: found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, Method) and found is not Method
}


@cache
def _installed() -> dict[str, type[Method]]:
    """Methods that other packages register."""
    found = {}
    for entry in entry_points(group="equivox.methods"):
        method = entry.load()
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise TypeError(
                f"The entry point `{entry.name}` should name a `Method`. Found `{entry.value}`."
            )
        found[entry.name] = method
    return found


def names() -> tuple[str, ...]:
    """The names of all methods: the library's own, then those of other packages."""
    return tuple({**_OWN, **_installed()})


def get(name: str) -> type[Method]:
    """The class of a method by its name, for example `get("ogm_ge")`.

    Raises ValueError for an unknown name, with the nearest known one.
    """
    known = {**_installed(), **_OWN}
    if name not in known:
        raise ValueError(
            f"The method should be a known one. Found `{name!r}`. {nearest(name, known)}"
        )
    return known[name]
