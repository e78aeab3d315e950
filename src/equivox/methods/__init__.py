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
from equivox.methods.feedforward.opm import OPM
from equivox.methods.objective.mmcosine import MMCosine
from equivox.methods.optimization.agm import AGM
from equivox.methods.optimization.ogm_ge import OGMGE
from equivox.methods.optimization.pmr import PMR
from equivox.methods.yardstick.joint import Joint

__all__ = ["AGM", "OGMGE", "OPM", "PMR", "Joint", "MMCosine"]

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
