"""Onset: when a modality was left behind in training, which is early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from equivox.arguments import number

Number = float | None


@dataclass(frozen=True)
class Onset:
    """When a modality was left behind, as epochs; None where it never was, or is not known.

    Attributes: `behind`, from when on its probe read less than the modality trained alone did after
    as many epochs, see `onset`; `gradient_norm` and `update_ratio`, from when on these of its
    encoder stayed below a tenth of their largest, see `collapse`, while another encoder's did not:
    where all fall, the training converged.
    """

    behind: int | None
    gradient_norm: int | None
    update_ratio: int | None


def onset(
    curve: Sequence[Number], reference: Sequence[Number], margin: float = 0.02, steady: int = 2
) -> int | None:
    """The first epoch at which a curve is below its reference by more than `margin`.

    :param reference: Where it is the shorter one, it stays at its last value.
    :param steady: For how many epochs in a row it must be: one dip is noise. Epochs without a
        number are passed over.
    :returns: A position in the curve, or None where it never falls behind.

    >>> onset([0.5, 0.6, 0.6, 0.6], [0.5, 0.6, 0.7, 0.8])
    2
    """
    number("steady", steady, least=1)
    behind: list[int] = []
    for epoch, x in enumerate(curve):
        other = at(reference, epoch)
        if x is None or other is None:
            continue
        behind = [*behind, epoch] if other - x > margin else []
        if len(behind) == steady:
            return behind[0]
    return None


def collapse(curve: Sequence[Number], share: float = 0.1, steady: int = 2) -> int | None:
    """The position from which on a curve stays below a share of its largest value.

    :param steady: At how many epochs at least. Those without a number are passed over.
    :returns: None where it does not stay there.

    >>> collapse([2.0, 5.0, 0.4, 0.6, 0.4, 0.1])
    4
    """
    number("steady", steady, least=1)
    known = [(epoch, x) for epoch, x in enumerate(curve) if x is not None]
    least = share * max((x for _, x in known), default=0.0)
    fallen = [epoch for epoch, _ in takewhile(lambda each: each[1] < least, reversed(known))]
    return fallen[-1] if len(fallen) >= steady else None


def at(curve: Sequence[Number], epoch: int) -> Number:
    """A curve's number, which stays at the last one."""
    return curve[min(epoch, len(curve) - 1)] if curve else None
