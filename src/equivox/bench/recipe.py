"""Recipes: the fields of an experiment in a YAML file."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from equivox.bench.experiment import Experiment
from equivox.data.tables import beside, counted
from equivox.errors import nearest

NAMED = ("data_options", "arguments", "schedule_options")
"""The fields that hold values by name."""


def read(path: Path) -> dict[str, Any]:
    """The fields that a recipe sets.

    :raises FileNotFoundError: Where there is none.
    :raises ValueError: Where it is no YAML of plain values, names a field twice, or one that an
        experiment does not have, with the nearest that it has.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except IsADirectoryError as error:
        raise IsADirectoryError(f"`{path}` should be a recipe. Found a folder.") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"`{path}` should be a recipe. Found {beside(path)}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"`{path}` should be YAML of plain values. Found: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"`{path}` should hold values by name. Found `{found!r}`.")
    known = [field.name for field in fields(Experiment)]
    for name, value in found.items():
        if name not in known:
            raise ValueError(
                f"`{path}` should set fields of an experiment. Found `{name}`. "
                f"{nearest(str(name), known)}"
            )
        if name in NAMED and not isinstance(value, dict):
            raise ValueError(f"`{name}` of `{path}` should be values by name. Found `{value!r}`.")
    return found


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2, and no key may occur twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if twice := counted(str(key.value) for key, _ in node.value):
            raise ValueError(f"`{next(iter(twice))}` more than once")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)
