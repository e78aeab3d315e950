"""What a data set is here: three splits of samples and the facts about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from equivox.encoders import Encoder
from equivox.errors import nearest

if TYPE_CHECKING:
    from equivox.task import Task

Sample = tuple[dict[str, Tensor], Tensor, Tensor]
"""`(inputs, target, index)`: one sample, or a batch of them along the first axis."""

SPLITS = ("train", "validation", "test")


class Split(Dataset[Sample]):
    """The samples of a split: item `i` is `(inputs, target, index)`.

    Attributes: `target`, the targets of all samples (samples, ...).
    """

    target: Tensor

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in order."""
        raise NotImplementedError

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample of each modality."""
        raise NotImplementedError

    def only(self, modality: str) -> Split:
        """The same samples with one modality alone."""
        raise NotImplementedError

    def words(self, modality: str, place: int) -> str | None:
        """The text of a sample, where the modality is one and its words are known."""
        return None

    def order(self, shuffle: bool, generator: torch.Generator | None) -> Sampler[Any] | None:
        """The sampler of a pass, where the split has one of its own."""
        return None

    @staticmethod
    def collate(samples: Sample | list[Sample]) -> Sample:
        """A batch as it is, or a list of single samples stacked into one."""
        if isinstance(samples, list):
            inputs, target, index = default_collate(samples)
            return inputs, target, index
        return samples


class Samples(Split):
    """A split held in memory: item `i` is `(inputs, target, index)`.

    A batch is read with one indexing operation a tensor, through `__getitems__`; a `DataLoader`
    over it therefore needs `collate_fn=Samples.collate` (`MultimodalData.loader` sets it).

    :param inputs: One tensor (samples, ...) a modality.
    :param target: The targets (samples, ...).
    :param vocabulary: By modality, the words that its token numbers stand for; 0 is padding.
    :raises ValueError: Where there are no modalities or the lengths differ.

    >>> samples = Samples({"audio": torch.zeros(3, 8)}, torch.tensor([0, 1, 0]))
    >>> inputs, target, index = samples[1]
    >>> inputs["audio"].shape, target, index
    (torch.Size([8]), tensor(1), tensor(1))
    """

    def __init__(
        self,
        inputs: Mapping[str, Tensor],
        target: Tensor,
        vocabulary: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        lengths = {name: len(x) for name, x in inputs.items()} | {"target": len(target)}
        if not inputs or len(set(lengths.values())) > 1:
            raise ValueError(
                "A split needs at least one modality and equally many samples of each. "
                f"Found {lengths}."
            )
        self.inputs = dict(inputs)
        self.target = target
        self.vocabulary = dict(vocabulary or {})

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"A sample's index should be below {len(self)}. Found {index}.")
        return self._rows(torch.tensor(index % len(self)))

    def __getitems__(self, indices: list[int]) -> Sample:
        return self._rows(torch.tensor(indices))

    def _rows(self, index: Tensor) -> Sample:
        return {name: x[index] for name, x in self.inputs.items()}, self.target[index], index

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(x.shape[1:]) for name, x in self.inputs.items()}

    def only(self, modality: str) -> Samples:
        """The same samples with one modality alone."""
        return Samples({modality: self.inputs[modality]}, self.target, self.vocabulary)

    def words(self, modality: str, place: int) -> str | None:
        if modality not in self.vocabulary:
            return None
        known = self.vocabulary[modality]
        return " ".join(known[token] for token in self.inputs[modality][place].tolist() if token)


def draws(seed: int) -> torch.Generator:
    """What made data are drawn from.

    Data sets differ a little from draw to draw. Seed 0 stands for one that lies near the reference
    results of `latent2`, `latent3` and `digits`; any other shows the same effects.
    """
    return torch.Generator().manual_seed(seed + 3)


def divide(
    inputs: Mapping[str, Tensor],
    target: Tensor,
    train: int,
    validation: int,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Samples, Samples, Samples]:
    """Cut into the first `train` samples, the next `validation` ones, and the rest for testing."""

    def part(start: int, stop: int | None) -> Samples:
        cut = {name: x[start:stop] for name, x in inputs.items()}
        return Samples(cut, target[start:stop], vocabulary)

    return part(0, train), part(train, train + validation), part(train + validation, None)


@dataclass(frozen=True)
class Recipe:
    """The settings of plain SGD under which a data set is usually trained here."""

    batch_size: int = 64
    epochs: int = 15
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class MultimodalData:
    """Three splits of multimodal samples, and what is known about them.

    :param name: The name it was loaded by.
    :param options: The options it was loaded with: `load(name, **options)` gives it again.
    :param train: The training samples; `validation` and `test` likewise.
    :param architectures: What builds the default encoder of each modality.
    :param recipe: The usual training settings.
    :param fusion: The usual fusion, of `equivox.fusion.FUSIONS`.
    :param classes: The names of the classes; empty for regression.
    :param ceilings: Exact best reachable accuracy (classification) or R2 (regression) of sets of
        modalities; empty where unknown.
    :param target_scale: Mean and standard deviation by which a regression target was standardised.
    :param facts: What was found when it was loaded: counts, what is missing, how it is decoded.
    :param workers: Processes that decode beside the training one; they do not change a value.
    """

    name: str
    options: Mapping[str, Any]
    train: Split
    validation: Split
    test: Split
    architectures: Mapping[str, Callable[[], Encoder]] = field(repr=False)
    recipe: Recipe = Recipe()
    fusion: str = "concat"
    classes: tuple[str, ...] = ()
    ceilings: Mapping[tuple[str, ...], float] = field(default_factory=dict, repr=False)
    target_scale: tuple[float, float] = (0.0, 1.0)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    workers: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in order."""
        return self.train.modalities

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample of each modality."""
        return self.train.shapes

    @property
    def outputs(self) -> int:
        """The number of logits: one a class, or one a regression target."""
        return len(self.classes) or self.train.target[0].numel()

    @property
    def task(self) -> Task:
        """What a model is trained for on these data."""
        from equivox.task import Classification, Regression

        return Classification(self.outputs) if self.classes else Regression(self.outputs)

    @property
    def widths(self) -> dict[str, int]:
        """The feature widths of the default encoders."""
        with torch.device("meta"):  # neither memory nor the random state is touched
            return {name: encoder.width for name, encoder in self.encoders().items()}

    def encoders(self) -> dict[str, Encoder]:
        """Fresh default encoders, initialised from torch's random state, modality by modality."""
        return {name: build() for name, build in self.architectures.items()}

    def loader(
        self,
        split: str,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        num_workers: int | None = None,
    ) -> DataLoader[Sample]:
        """Batches of a split.

        :param split: "train", "validation" or "test".
        :param batch_size: The recipe's where not given.
        :param shuffle: By default for the training split alone.
        :param generator: What the order is drawn from; torch's random state where not given.
        :param drop_last: Leave out an incomplete last batch.
        :param num_workers: `workers` where not given.
        :raises ValueError: For any other split.
        """
        if split not in SPLITS:
            raise ValueError(
                f"`split` should be one of {SPLITS}. Found `{split!r}`. {nearest(split, SPLITS)}"
            )
        samples: Split = getattr(self, split)
        shuffle = split == "train" if shuffle is None else shuffle
        order = samples.order(shuffle, generator)
        return DataLoader(
            samples,
            batch_size=self.recipe.batch_size if batch_size is None else batch_size,
            shuffle=shuffle if order is None else None,
            sampler=order,
            generator=generator,
            drop_last=drop_last,
            num_workers=self.workers if num_workers is None else num_workers,
            collate_fn=samples.collate,
        )
