"""Conditions on a diagnosis, as `equivox diagnose --fail-on` has them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from equivox.diagnosis.diagnose import Diagnosis
from equivox.errors import nearest

SHORT: dict[str, str] = {
    "imbalance": "contributions.zero.imbalance",
    "relative": "contributions.zero.relative",
    "gap": "probes.*.gap.value",
    "neglected": "verdict.neglected",
    "held_back": "verdict.held_back",
    "gain": "headroom.gain.value",
    "single_gain": "headroom.single_gain.value",
    "headroom": "headroom.*gain.value",
    "joint": "headroom.joint.value",
    "late_fusion": "headroom.late_fusion.value",
    "chance": "headroom.chance",
    "faults": "data",
}
"""Short names for `--fail-on`, and what they are in the JSON: of several the largest, of lists the
number of entries, and of the data's findings that of the faults."""

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Condition:
    """A comparison of a value of the diagnosis with a number."""

    name: str
    sign: str
    number: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.number:g}"

    def __call__(self, plain: Mapping[str, Any]) -> tuple[float, bool]:
        """The value, and whether the condition holds.

        Raises ValueError for an unknown name, and for what was not measured.
        """
        value = named(plain, self.name)
        return value, OPERATORS[self.sign](value, self.number)


def condition(text: str) -> Condition:
    """The condition that is written NAME OP NUMBER.

    Raises ValueError for what is not, and for a name that no diagnosis has.

    >>> condition("imbalance>0.3")
    Condition(name='imbalance', sign='>', number=0.3)
    """
    parts = re.fullmatch(r"\s*([^<>=!]+?)\s*(<=|>=|==|!=|<|>)\s*([^<>=!]+?)\s*", text)
    number = _number(parts[3]) if parts else None
    if parts is None or number is None:
        raise ValueError(
            "A condition should be written NAME OP NUMBER, with one of "
            f"{' '.join(OPERATORS)}. Found `{text}`. For example `imbalance>0.3`."
        )
    known = {*SHORT, *(f.name for f in fields(Diagnosis))}
    if parts[1].partition(".")[0] not in known:
        raise _unknown(parts[1], SHORT)
    return Condition(parts[1], parts[2], number)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def named(plain: Mapping[str, Any], name: str) -> float:
    """The value of a short name, or of a flat one such as `probes.audio.gap.low`."""
    values = flat(plain)
    if name == "faults":
        return sum(finding["severity"] == "fault" for finding in plain["data"])
    if name in ("neglected", "held_back"):
        return len(plain["verdict"][name])
    pattern = SHORT.get(name, name)
    if "*" in pattern and name in SHORT:
        shape = re.escape(pattern).replace(r"\*", ".*")
        found = [x for key, x in values.items() if re.fullmatch(shape, key) and x is not None]
        value = max(found, default=None)
    elif pattern in values:
        value = values[pattern]
    else:
        raise _unknown(name, {*SHORT, *values})
    if value is None:
        raise ValueError(f"A condition is on something measured. Found that `{name}` was not.")
    return value


def flat(plain: Any, name: str = "") -> dict[str, float | None]:
    """The numbers of nested values, and what was not measured, by their names with dots.

    >>> flat({"a": {"b": 0.5, "c": [1, True]}, "d": "word"})
    {'a.b': 0.5, 'a.c.0': 1.0, 'a.c.1': 1.0}
    """
    if isinstance(plain, Mapping):
        parts = {str(key): part for key, part in plain.items()}
    elif isinstance(plain, Sequence) and not isinstance(plain, str):
        parts = {str(place): part for place, part in enumerate(plain)}
    else:
        return {} if isinstance(plain, str) else {name: None if plain is None else float(plain)}
    return {
        key: x
        for part, inside in parts.items()
        for key, x in flat(inside, f"{name}.{part}" if name else part).items()
    }


def _unknown(name: str, known: Any) -> ValueError:
    return ValueError(
        f"A condition is on a number of the diagnosis's JSON. Found `{name}`. "
        f"{nearest(name, known)}"
    )
