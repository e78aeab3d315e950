"""Whether a field data set is whole: every file is looked for, decoded and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from equivox.data import loading
from equivox.data.field import Contents, Decoder, Entry, Load
from equivox.data.tables import counted


@dataclass(frozen=True)
class Report:
    """What a check found.

    :param name: Of the set; `root`, its folder; `preprocessing`, the id of how it was decoded.
    :param decoders: What decodes each modality, in words, and what it replaced.
    :param samples: Listed in each split.
    :param balance: How many of them each split has of each class; empty for regression.
    :param missing: The files that are not there, by split.
    :param corrupt: The files that cannot be decoded, with the reason, by split.
    :param remarks: Files and inputs that are whole and suspicious, such as silent ones.
    :param repeated: Ids that are listed more than once, with how often.
    :param alike: Groups of files with equal content, of different samples.
    :param left_out: Ids that a rule of the set leaves out, by the rule.
    """

    name: str
    root: str
    preprocessing: str
    decoders: Mapping[str, str]
    samples: Mapping[str, int]
    balance: Mapping[str, Mapping[str, int]]
    missing: Mapping[str, Sequence[str]]
    corrupt: Mapping[str, Mapping[str, str]]
    remarks: Mapping[str, str]
    repeated: Mapping[str, int]
    alike: Sequence[Sequence[str]]
    left_out: Mapping[str, Sequence[str]]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, corrupt, listed twice or empty."""
        bad = [*self.missing.values(), *self.corrupt.values(), self.repeated]
        return not any(bad) and all(self.samples.values())

    def to_json(self) -> dict[str, Any]:
        """The report in plain values."""
        return asdict(self) | {"whole": self.whole}


def check(name: str, root: str | Path | None = None, **options: Any) -> Report:
    """Look for every file of a set and decode it.

    :param options: The set's own; they say which files belong to it. Of those that all sets share
        `exclude` leaves samples out, and the others change nothing.
    :raises FileNotFoundError: For a wrong root or a missing list; ValueError for a malformed one.
    """
    own = {option: value for option, value in options.items() if option not in loading.COMMON}
    place, contents = loading.read(name, 0, root, own)
    if "exclude" in options:
        contents, left_out = loading.without(contents, options["exclude"])
        contents = replace(contents, left_out=left_out)
    look = _Look(contents.decoders)
    missing: dict[str, list[str]] = {}
    corrupt: dict[str, dict[str, str]] = {}
    for split, entries in contents.entries.items():
        lacking = {e.id: loading.missing_files(contents, e) for e in entries}
        missing[split] = sorted({str(path) for files in lacking.values() for path in files})
        corrupt[split] = {}
        for entry in entries:
            corrupt[split] |= look.at(entry) if not lacking[entry.id] else {}
    every = [entry for entries in contents.entries.values() for entry in entries]
    return Report(
        name=name,
        root=str(place),
        preprocessing=loading.preprocessing_id(name, contents),
        decoders={modality: repr(decoder) for modality, decoder in contents.decoders.items()},
        samples={split: len(entries) for split, entries in contents.entries.items()},
        balance=_balance(contents),
        missing=missing,
        corrupt=corrupt,
        remarks=look.remarks,
        repeated=counted(entry.id for entry in every),
        alike=[sorted(files) for files in look.contents.values() if len(files) > 1],
        left_out={rule: list(ids) for rule, ids in contents.left_out.items()},
    )


class _Look:
    """Decodes samples, and keeps what is remarkable of their files."""

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        self.decoders = decoders
        self.remarks: dict[str, str] = {}
        self.contents: dict[str, list[str]] = {}
        self._owner: dict[str, str] = {}

    def at(self, entry: Entry) -> dict[str, str]:
        """The damaged files of a sample, with the reason."""
        bad: dict[str, str] = {}
        for modality, decoder in self.decoders.items():
            source = entry.sources[modality]
            read: dict[Path, Tensor] = {}
            for part in decoder.parts(source):
                try:
                    read[part] = decoder.load(part)
                except (ValueError, OSError) as error:
                    bad[str(part)] = str(error)
                    continue
                self._note(entry, decoder, part, read[part])
            if all(str(part) not in bad for part in decoder.parts(source)):
                bad |= self._finish(entry, modality, decoder, read.__getitem__)
        return bad

    def _finish(self, entry: Entry, modality: str, decoder: Decoder, load: Load) -> dict[str, str]:
        """What is wrong with the model's input that a source gives."""
        name = f"{entry.id} {modality}"
        try:
            x = decoder.finish(entry.sources[modality], None, load)
        except (ValueError, OSError) as error:
            return {name: str(error)}
        if tuple(x.shape) != tuple(decoder.shape):
            found = f"should have the shape {tuple(decoder.shape)}. Found {tuple(x.shape)}."
            return {name: f"The input {found}"}
        if not bool(x.isfinite().all()):
            return {name: "The input should be finite. Found other numbers."}
        if not decoder.parts(entry.sources[modality]) and not bool(x.any()):
            self.remarks[name] = "zeros alone"  # a silent sequence, an empty text
        return {}

    def _note(self, entry: Entry, decoder: Decoder, part: Path, loaded: Tensor) -> None:
        if remark := decoder.remark(loaded):
            self.remarks[str(part)] = remark
        key = hashlib.blake2b(part.read_bytes(), digest_size=16).hexdigest()
        known = self.contents.setdefault(key, [])
        owner = self._owner.setdefault(key, entry.id)
        if not known or (owner != entry.id and str(part) not in known):
            known.append(str(part))


def _balance(contents: Contents) -> dict[str, dict[str, int]]:
    """How many samples each split has of each class."""
    counts: dict[str, dict[str, int]] = {}
    for split, entries in contents.entries.items():
        counts[split] = dict.fromkeys(contents.classes, 0)
        for entry in entries:
            if isinstance(entry.target, int) and contents.classes:
                counts[split][contents.classes[entry.target]] += 1
    return counts
