"""Validation samples held out of training, where a set has no validation split of its own.

Nothing is drawn: the same samples are held out on every machine, however the lists are ordered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from equivox.data.field import Entry

EVERY = 10
"""Of so many samples of a class, or of so many groups, the first is held out."""


def by_class(entries: Sequence[Entry], every: int = EVERY) -> dict[str, list[Entry]]:
    """Training and validation: of each class, in order of ids, one of `every` is held out.

    >>> entries = [Entry(f"{i:02d}", i % 2, {}) for i in range(20)]
    >>> [entry.id for entry in by_class(entries)["validation"]]
    ['00', '01']
    """
    classes: dict[Hashable, list[str]] = {}
    for entry in sorted(entries, key=lambda entry: entry.id):
        classes.setdefault(str(entry.target), []).append(entry.id)
    chosen = {id_ for ids in classes.values() for id_ in ids[::every]}
    return _divided(entries, lambda entry: entry.id in chosen)


def by_group(
    entries: Sequence[Entry], group: Callable[[Entry], str], every: int = EVERY
) -> dict[str, list[Entry]]:
    """Training and validation that share no group: of the sorted groups, one of `every`.

    :param group: Of a sample: its dialogue, its speaker, the video it is cut from.

    >>> entries = [Entry(f"{group}/{i}", 0, {}) for group in "cab" for i in range(2)]
    >>> [entry.id for entry in by_group(entries, lambda entry: entry.id[0])["validation"]]
    ['a/0', 'a/1']
    """
    chosen = set(sorted({group(entry) for entry in entries})[::every])
    return _divided(entries, lambda entry: group(entry) in chosen)


def _divided(entries: Sequence[Entry], held: Callable[[Entry], bool]) -> dict[str, list[Entry]]:
    return {
        "train": [entry for entry in entries if not held(entry)],
        "validation": [entry for entry in entries if held(entry)],
    }
