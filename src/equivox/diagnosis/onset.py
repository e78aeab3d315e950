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

    Attributes: `behind`, from when on its probe read less than the modality's own model reached
    after as many epochs, see `onset`; `gradient_norm` and `update_ratio`, from when on these of its
    encoder stayed below a tenth of their largest, see `collapse`, while another encoder's did not:
    where all fall, the training converged.
    """

    behind: int | None
    gradient_norm: int | None
    update_ratio: int | None


def onset(
    curve: Sequence[Number], reference: Sequence[Number], margin: float = 0.02, steady: int = 2
) -> int | None:
    """The position from which on a curve stays below its reference by more than `margin`.

    :param reference: Where it is the shorter one, it stays at its last value.
    :param steady: At how many epochs at least: one dip is noise. Those without a number are passed
        over.
    :returns: None where it is not behind in the end.

    >>> onset([0.5, 0.6, 0.6, 0.6], [0.5, 0.6, 0.7, 0.8])
    2
    """
    number("steady", steady, least=1)
    pairs = ((epoch, x, at(reference, epoch)) for epoch, x in enumerate(curve))
    behind = [(e, other - x > margin) for e, x, other in pairs if not (x is None or other is None)]
    return _lasting(behind, steady)


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
    return _lasting([(epoch, x < least) for epoch, x in known], steady)


def _lasting(found: Sequence[tuple[int, bool]], steady: int) -> int | None:
    """The first of the last epochs that all have it, of which there are so many at least."""
    last = [epoch for epoch, _ in takewhile(lambda each: each[1], reversed(found))]
    return last[-1] if len(last) >= steady else None


def at(curve: Sequence[Number], epoch: int) -> Number:
    """A curve's number, which stays at the last one."""
    return curve[min(epoch, len(curve) - 1)] if curve else None
