"""SMV: Enhancing Multimodal Cooperation via Sample-level Modality Valuation (CVPR 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from equivox.distributed import rank, world
from equivox.functional import mean_of_others, shapley_values, subsets
from equivox.method import Batch, Method

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.task import Task


def valuation(
    correct: Mapping[frozenset[str], Float[Tensor, " batch"]], modalities: Sequence[str]
) -> dict[str, Float[Tensor, " batch"]]:
    """phi_m of every sample, the Shapley value of v(S) = |S| times whether S alone is right.

    :param correct: 1 where the prediction from this subset is right, 0 where wrong, or between.

    >>> right, wrong = torch.ones(1), torch.zeros(1)
    >>> correct = {frozenset("a"): right, frozenset("v"): wrong, frozenset("av"): right}
    >>> valuation(correct, ["a", "v"])
    {'a': tensor([1.5000]), 'v': tensor([0.5000])}
    """
    return shapley_values({s: len(s) * right for s, right in correct.items()}, modalities)


def copies_of(phi: Float[Tensor, "*shape"], rule: str = "table") -> Int[Tensor, "*shape"]:
    """How many copies of a sample keep only the modality of contribution phi: none for phi >= 1.

    "table": one below 1, two below 0.4, three below -0.1. "linear": min(3, floor(2.5 - 2 phi)),
    the same for two modalities.

    >>> copies_of(torch.tensor([1.5, 1.0, 0.5, 0.0, -0.5]))
    tensor([0, 0, 1, 2, 3], dtype=torch.int8)
    """
    low = phi < 1 - 1e-6  # multiples of 1 / M! are rounded
    if rule == "linear":
        count = (2.5 - 2 * phi + 1e-6).floor().clamp(0, 3) * low
    else:
        count = low.int() + (phi < 0.4).int() + (phi < -0.1).int()
    return count.to(torch.int8)


def resampling_share(
    contributions: Mapping[str, float], alpha: float = 1.0, gain: str = "linear"
) -> tuple[str, float]:
    """The modality that contributes least, and the share p of samples to copy for it.

    With g = 2/3 (largest gap - mean of the other gaps), gap_m = 1 - mean phi_m: p = alpha g,
    tanh(alpha g) or alpha g^1.5. With two modalities that is the paper's |gap_1 - gap_2|.

    >>> resampling_share({"a": 0.9, "v": 0.4})
    ('v', 0.333...)
    """
    gaps = {m: torch.tensor(1 - phi, dtype=torch.float64) for m, phi in contributions.items()}
    target = max(gaps, key=lambda m: float(gaps[m]))
    g = 2 / 3 * max(float(gaps[target] - mean_of_others(gaps)[target]), 0.0)
    shares = {"linear": alpha * g, "tanh": math.tanh(alpha * g), "square": alpha * g**1.5}
    return target, shares[gain]


def extended(
    counts: Int[Tensor, "samples modalities"],
) -> tuple[Int[Tensor, " rows"], Bool[Tensor, "rows modalities"]]:
    """The samples, each once and whole, then their copies, and which modalities every row keeps.

    >>> extended(torch.tensor([[0, 1], [0, 0]]))
    (tensor([0, 1, 0]), tensor([[ True,  True],
            [ True,  True],
            [False,  True]]))
    """
    samples, modalities = counts.shape
    every = torch.arange(samples)
    copies = [every.repeat_interleave(column.long()) for column in counts.unbind(1)]
    alone = torch.eye(modalities, dtype=torch.bool)
    whole = torch.ones(samples, modalities, dtype=torch.bool)
    keep = [row.expand(len(part), -1) for row, part in zip(alone, copies, strict=True)]
    return torch.cat([every, *copies]), torch.cat([whole, *keep])


def planned_loader(loader: Any, batches: Iterable[Tensor]) -> DataLoader[Any]:
    """A loader of these batches of positions in the data set, otherwise like `loader`.

    ValueError for a loader that has no data set to draw from.
    """
    sized = hasattr(getattr(loader, "dataset", None), "__len__")
    if not sized or not getattr(loader, "batch_size", None):
        raise ValueError(
            "Resampling needs a loader with a `dataset` of known length and a `batch_size`. Found "
            f"`{type(loader).__name__}`. Use a `DataLoader` of a map-style data set."
        )
    options = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    return DataLoader(loader.dataset, batch_sampler=[b.tolist() for b in batches], **options)


_KEPT = (
    "collate_fn",
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
    "prefetch_factor",
)


class SMV(Method):
    """Show a modality alone, more often, where it contributes little to a sample.

    Before every epoch after the warm-up the training set is valued: phi_m is the Shapley value of
    v(S) = |S| times the correctness of what the modalities in S predict, the others blanked.
    "sample": every sample gets one to three copies a modality with phi_m < 1, in which all other
    modalities are blanked. "modality": a share of the samples, by how far the least contributing
    modality is behind, gets one copy that keeps that modality. Originals are always kept, whole.
    The loss is the usual one. Correctness is the task's: F1 for labels, exp(-loss) for regression.

    Arguments:
        variant: "sample" or "modality".
        warmup: plain epochs; the paper uses 5.
        copies: "table", or "linear" (ours); they differ for three and more modalities.
        part_ratio: the share of samples that a modality's mean contribution is estimated on,
            "modality" only; the paper uses 0.2.
        alpha: strength of "modality"; the paper uses 1.
        gain: its form, "linear", "tanh" or "square".

    Each sample of the loader's data set is drawn once an epoch and shuffled; the loader's own
    sampler rules the warm-up, and epochs without copies. The loader's transforms act in the
    valuation too, as in the released code. In a chain it comes last: it takes batches from the
    data set, not from other methods.

    Errors: ValueError for a loader without `dataset` and `batch_size`.

    Source: Wei et al., CVPR 2024, Eq. 1-7; thresholds and gains after the released code.

    >>> SMV(variant="modality", warmup=1).part_ratio
    0.2
    """

    category = "data"
    resamples = True
    search_space: ClassVar[Mapping[str, Any]] = {
        "variant": ("sample", "modality"),
        "warmup": (5, 1),
        "alpha": (1.0, 0.5, 2.0),
    }
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "an epoch with copies is shuffled anew, batch by batch",
        "equals_on_two_ranks": "ranks cut an epoch with copies in another way",
        "equals_on_two_ranks_accumulating": "ranks cut an epoch with copies in another way",
    }
    brief: ClassVar[Mapping[str, Any]] = {"warmup": 0}
    counts: Tensor

    def __init__(
        self,
        *,
        variant: str = "sample",
        warmup: int = 5,
        copies: str = "table",
        part_ratio: float = 0.2,
        alpha: float = 1.0,
        gain: str = "linear",
    ) -> None:
        super().__init__()
        known: dict[str, tuple[str, ...]] = {
            "variant": ("sample", "modality"),
            "copies": ("table", "linear"),
        }
        known["gain"] = ("linear", "tanh", "square")
        for name, value in (("variant", variant), ("copies", copies), ("gain", gain)):
            if value not in known[name]:
                raise ValueError(f"`{name}` should be one of {known[name]}. Found `{value!r}`.")
        if warmup < 0 or alpha < 0:
            raise ValueError(
                f"`warmup` and `alpha` should be zero or more. Found {warmup} and {alpha}."
            )
        if not 0 < part_ratio <= 1:
            raise ValueError(
                f"`part_ratio` should be in (0, 1]. Found `part_ratio = {part_ratio}`."
            )
        self.variant = variant
        self.warmup = warmup
        self.copies = copies
        self.part_ratio = part_ratio
        self.alpha = alpha
        self.gain = gain

    def setup(self, model: Multimodal, task: Task) -> Task:
        # How many copies of each sample keep each modality alone: (samples, modalities).
        self.register_buffer("counts", torch.zeros(0, len(model.modalities), dtype=torch.int8))
        return task

    def prepare(self, run: Run) -> None:
        planned_loader(run.loader, [])  # a loader that will not do is refused before the warm-up
        if run.number < self.warmup:
            return
        phi = self._valued(run)
        if self.variant == "modality":
            self.counts = self._by_modality(phi, run)
        else:
            self.counts = copies_of(torch.stack(list(phi.values()), 1), self.copies)

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        counts = self.counts.cpu()
        if run.number < self.warmup or not counts.any():
            yield from batches
            return
        loader: Any = run.loader
        rows, keep = extended(counts)
        order = _of_rank(torch.randperm(len(rows), generator=run.shuffle)).split(loader.batch_size)
        if getattr(loader, "drop_last", False):
            order = tuple(part for part in order if len(part) == loader.batch_size)
        planned = planned_loader(loader, [rows[part] for part in order])
        for batch, part in zip(run.batches(planned), order, strict=False):
            yield batch.with_(keep=keep[part])

    def _valued(self, run: Run) -> dict[str, Tensor]:
        """phi_m of every sample, in the order of the data set, on every rank."""
        names = run.model.modalities
        data: Any = run.loader

        def correct(output: Output, batch: Batch) -> dict[Any, Tensor]:
            logits = run.model.fuse_subsets(output.features, subsets(names)[1:])
            return {s: run.task.correct(x, batch.target) for s, x in logits.items()}

        parts = torch.arange(len(data.dataset))[rank() :: world()].split(data.batch_size)
        loader = planned_loader(data, parts)
        # Numbered by their position: a data set may number its samples otherwise.
        numbered = ((*item[:2], part) for item, part in zip(loader, parts, strict=True))
        return valuation(run.collect(numbered, correct), names)

    def _by_modality(self, phi: Mapping[str, Tensor], run: Run) -> Tensor:
        """One copy of a drawn share of the samples, for the least contributing modality."""
        # Not `run.shuffle`: the epoch's order must be the same where this is not run again.
        generator = torch.Generator().manual_seed(-1 - run.shuffle.initial_seed())
        count = len(next(iter(phi.values())))

        def drawn(share: float) -> Tensor:
            size = (int(share * count + 1e-9),)
            return torch.randint(count, size, generator=generator)

        part = drawn(max(self.part_ratio, 1 / count))
        means = {m: float(x.cpu()[part].double().mean()) for m, x in phi.items()}
        target, share = resampling_share(means, self.alpha, self.gain)
        table = torch.zeros(count, len(phi), dtype=torch.int8)
        chosen = drawn(share).bincount(minlength=count)
        table[:, list(phi).index(target)] = chosen.clamp(max=127).to(torch.int8)
        return table.to(self.counts.device)


def _of_rank(order: Tensor) -> Tensor:
    """This rank's part of an order that is the same on all; padded, so that all are as long."""
    return torch.cat([order, order[: -len(order) % world()]])[rank() :: world()]
