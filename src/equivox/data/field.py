"""Data sets that lie in files: what a set says of itself, and how its samples are decoded.

A set is one module of `equivox.data.sets`, named after it. It declares:

- its docstring: what it is, its layout under the root, its licence, its known traps.
- `CLASSES`: the fixed list of class names, in the order of their numbers (where it is known).
- `read(root, **options) -> Contents`: what lies under the root. It lists and decodes nothing; every
  option is keyword-only and has a default. It raises for a wrong root or a malformed list.
- `fake(out, seed=0) -> None`: writes a tiny set in the real layout with real encodings.
- `QUICK`: options for a look at the fake set on a CPU, with small inputs and encoders.

Everything else is the same for all sets: loading, missing files, the cache, workers, checking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

from equivox.data.base import Recipe, Sample, Split

if TYPE_CHECKING:
    from equivox.encoders import Encoder

Load = Callable[[Path], Tensor]
"""One file decoded: by a decoder, or read from a cache."""

STANDARD = Recipe(batch_size=64, epochs=100, lr=1e-3, momentum=0.9, weight_decay=1e-4)
"""SGD as most papers of the field train on audio and video from scratch."""


class Damaged(ValueError):
    """A file is there and cannot be decoded; the message names it."""


class Draw(NamedTuple):
    """A sample's place in its split and the seed of the pass over the data in which it is drawn.

    What is drawn for a sample depends on these two alone: not on the workers, not on the other
    samples, not on what was drawn before.

    >>> draw = Draw(place=5, seed=1)
    >>> a, b = (torch.rand(1, generator=draw.generator("flip")) for _ in range(2))
    >>> bool(a == b), bool(a == torch.rand(1, generator=draw.generator("crop")))
    (True, False)
    """

    place: int
    seed: int

    def generator(self, stream: str) -> torch.Generator:
        """A fresh generator of this draw.

        :param stream: What is drawn from it. The same name gives the same numbers again: modalities
            that must be changed alike, such as a clip and its optical flow, draw from one stream.
        """
        text = f"{self.seed} {self.place} {stream}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
        return torch.Generator().manual_seed(number)


class Entry(NamedTuple):
    """One sample as a set lists it.

    Attributes: `id`, its name, unique within the set; `target`, a class number, or a list of
    numbers for regression; `sources`, what the decoder of each modality is given: a path, a text,
    a tensor, whatever that decoder takes.
    """

    id: str
    target: int | list[float]
    sources: Mapping[str, Any]


class Decoder(Protocol):
    """How one modality is read: in practice a frozen dataclass of `equivox.data.decoders`.

    `repr` names all that its result depends on: it is a part of the preprocessing id.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what `finish` returns."""

    def missing(self, source: Any) -> list[Path]:
        """The files of a source that are not there."""

    def parts(self, source: Any) -> Sequence[Path]:
        """The files of a source, in order; none for a source that is no file."""

    def load(self, part: Path) -> Tensor:
        """One file decoded, the same every time: what a cache keeps. Raises `Damaged`."""

    def remark(self, loaded: Tensor) -> str:
        """What a check should say of a decoded file that is whole and still suspicious, or ""."""

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        """The model's input.

        :param draw: What augmentation draws from; None outside training, where nothing is drawn.
        :param load: `self.load`, or a cache's. Parts are read through it and in no other way.
        """


@dataclass(frozen=True)
class Contents:
    """What `read` found under a root.

    :param entries: The samples of "train", "validation" and "test". Nothing is left out because
        its files are missing: that is counted, named and decided on elsewhere.
    :param decoders: By modality, in order.
    :param architectures: What builds the default encoder of each modality.
    :param classes: The class names; empty for regression.
    :param recipe: The usual training settings; `fusion` likewise.
    :param left_out: Ids that a rule of the set leaves out, by the rule in words, for example
        `{"three frames or fewer": [...]}`.
    :param target_scale: See `MultimodalData`.
    """

    entries: Mapping[str, Sequence[Entry]]
    decoders: Mapping[str, Decoder]
    architectures: Mapping[str, Callable[[], Encoder]]
    classes: tuple[str, ...] = ()
    recipe: Recipe = STANDARD
    fusion: str = "concat"
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    target_scale: tuple[float, float] = (0.0, 1.0)


class Decoded(Split):
    """A split whose samples are decoded when they are asked for.

    `MultimodalData.loader` asks for them by a `Draw`. Where a sampler of one's own asks by number,
    the seed is drawn from torch's random state, and with it depends on the number of workers.

    :param entries: Its samples.
    :param decoders: By modality.
    :param augment: Whether what training draws (crops, flips, moments) is drawn.
    :param loads: What reads the files of a modality instead of its decoder: a cache.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        decoders: Mapping[str, Decoder],
        augment: bool,
        loads: Mapping[str, Load] | None = None,
    ) -> None:
        self.entries = list(entries)
        self.decoders = dict(decoders)
        self.augment = augment
        self.loads = {m: d.load for m, d in decoders.items()} | dict(loads or {})
        numbers = isinstance(self.entries[0].target, list)
        kind = torch.float32 if numbers else torch.int64
        self.target = torch.tensor([entry.target for entry in self.entries], dtype=kind)

    def __repr__(self) -> str:
        return f"Decoded({len(self)} samples of {', '.join(self.decoders)})"

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.decoders)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(decoder.shape) for name, decoder in self.decoders.items()}

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int | Draw) -> Sample:
        place = index.place if isinstance(index, Draw) else index
        if not -len(self) <= place < len(self):
            raise IndexError(f"A sample's index should be below {len(self)}. Found {place}.")
        place %= len(self)
        seen = Draw(place, _seed_of(index)) if self.augment else None
        sources = self.entries[place].sources
        inputs = {
            name: decoder.finish(sources[name], seen, self.loads[name])
            for name, decoder in self.decoders.items()
        }
        return inputs, self.target[place], torch.tensor(place)

    def only(self, modality: str) -> Decoded:
        """The same samples with one modality alone."""
        one = {modality: self.decoders[modality]}
        return Decoded(self.entries, one, self.augment, {modality: self.loads[modality]})

    def words(self, modality: str, place: int) -> str | None:
        source = self.entries[place].sources[modality]
        if isinstance(source, Path) and source.suffix == ".txt":
            return source.read_bytes().decode("utf-8-sig", "replace").strip().partition("\n")[0]
        return source if isinstance(source, str) else None

    def order(self, shuffle: bool, generator: torch.Generator | None) -> Order:
        """The sampler of a pass; it draws the seed of what is drawn for its samples."""
        return Order(len(self), shuffle, generator)


def _new_seed(generator: torch.Generator | None = None) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


def _seed_of(index: int | Draw) -> int:
    return index.seed if isinstance(index, Draw) else _new_seed()


class Order(Sampler[Draw]):
    """The samples of a pass in their own or a random order, each with the seed of the pass.

    :param plan: Batches of places decided beforehand, which it yields instead.
    """

    def __init__(
        self,
        length: int,
        shuffle: bool,
        generator: torch.Generator | None,
        plan: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.length = length
        self.shuffle = shuffle
        self.generator = generator
        self.plan = plan

    def __len__(self) -> int:
        return self.length if self.plan is None else len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        seed = _new_seed(self.generator)
        if self.plan is not None:
            for batch in self.plan:
                yield [Draw(place, seed) for place in batch]
            return
        places = torch.arange(self.length)
        if self.shuffle:
            places = torch.randperm(self.length, generator=self.generator)
        for place in places.tolist():
            yield Draw(place, seed)

    def planned(self, plan: Sequence[Sequence[int]]) -> Order:
        """A batch sampler of these batches."""
        return Order(self.length, False, self.generator, plan)
