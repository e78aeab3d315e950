"""SMV: Enhancing Multimodal Cooperation via Sample-level Modality Valuation (CVPR 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice, number
from equivox.data.planned import batches_of_rank, planned_loader
from equivox.distributed import rank, world
from equivox.functional import subsets
from equivox.functional.resampling import copies_of, extended, resampling_share, valuation
from equivox.method import Batch, Method

if TYPE_CHECKING:
    from equivox.features import Features
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step
    from equivox.task import Task


class SMV(Method):
    """Show a modality alone, more often, where it contributes little to a sample.

    Before every epoch after the warm-up the training set is valued: phi_m is the Shapley value of
    v(S) = |S| times the correctness of what the modalities in S predict, the others blanked.
    "sample": every sample gets one to three copies a modality with phi_m < 1, in which all other
    modalities are blanked. "modality": a share of the samples, by how far the least contributing
    modality is behind, gets one copy that keeps that modality. Originals are always kept, whole.
    Correctness is the task's: F1 for labels, exp(-loss) for regression.

    Arguments:
        variant: "sample" or "modality".
        warmup: plain epochs; the paper uses 5.
        copies: "table", or "linear" (ours); they differ for three and more modalities.
        part_ratio: share of samples behind the means of phi in "modality"; the paper uses 0.2.
        alpha: strength of "modality"; the paper uses 1.
        gain: its form, "linear", "tanh" or "square".

    Each sample of the loader's data set is drawn once an epoch and shuffled; the loader's own
    sampler rules the warm-up, and epochs without copies. The transforms act in the valuation too.
    Raises ValueError for a loader without `dataset` and `batch_size`.

    Source: Wei et al., CVPR 2024, Eq. 1-7; thresholds and gains after the released code.

    >>> SMV(variant="modality", warmup=1).part_ratio
    0.2
    """

    category = "data"
    fidelity = "official"
    resamples = True
    ingredients = frozenset({"extra epochs"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "variant": ("sample", "modality"),
        "warmup": (5, 1),
        "alpha": (1.0, 0.5, 2.0),
    }
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "the last batch of an epoch with copies has uneven parts",
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
        self.variant = choice("variant", variant, ("sample", "modality"))
        self.warmup = number("warmup", warmup, least=0)
        self.copies = choice("copies", copies, ("table", "linear"))
        self.part_ratio = number("part_ratio", part_ratio, above=0, most=1)
        self.alpha = number("alpha", alpha, least=0)
        self.gain = choice("gain", gain, ("linear", "tanh", "square"))

    def setup(self, model: Multimodal, task: Task) -> Task:
        # How many copies of each sample keep each modality alone: (samples, modalities).
        self.register_buffer("counts", torch.zeros(0, len(model.modalities), dtype=torch.int8))
        return task

    def prepare(self, run: Run) -> None:
        planned_loader(run.loader, [])  # a loader that will not do is refused before the warm-up
        if run.number < self.warmup:
            return
        phi = self._valued(run)
        if self.variant == "sample":
            self.counts = copies_of(torch.stack(list(phi.values()), 1), self.copies)
        else:
            self.counts = self._by_modality(phi, run)

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        counts = self.counts.cpu()
        if run.number < self.warmup or not counts.any():
            yield from batches
            return
        loader: Any = run.loader
        rows, keep = extended(counts)
        order = torch.randperm(len(rows), generator=run.shuffle)
        parts = batches_of_rank(order, loader.batch_size, getattr(loader, "drop_last", False))
        # At -1 stands a row that fills the last batch up: it keeps nothing and has no weight.
        rows, keep = torch.cat([rows, rows[:1]]), torch.cat([keep, torch.zeros_like(keep[:1])])
        planned = planned_loader(loader, [rows[part] for part in parts])
        for batch, part in zip(run.batches(planned), parts, strict=True):
            yield batch.with_(keep=keep[part])

    def features(self, features: Features, step: Step) -> Features:
        if world() > 1 and step.batch.keep is not None:
            counted = step.batch.keep.any(1).float()
            step.weigh(counted)
        return features

    def _valued(self, run: Run) -> dict[str, Tensor]:
        """phi_m of every sample, in the order of the data set, on every rank."""
        names = run.model.modalities
        data: Any = run.loader

        def correct(output: Output, batch: Batch) -> dict[Any, Tensor]:
            logits = run.model.fuse_subsets(output.features, subsets(names)[1:])
            return {s: run.task.correct(x, batch.target) for s, x in logits.items()}

        parts = torch.arange(len(data.dataset))[rank() :: world()].split(data.batch_size)
        # Numbered by their position: a data set may number its samples otherwise.
        items = zip(planned_loader(data, parts), parts, strict=True)
        numbered = ((*item[:2], part) for item, part in items)
        return valuation(run.collect(numbered, correct), names)

    def _by_modality(self, phi: Mapping[str, Tensor], run: Run) -> Tensor:
        """One copy of a drawn share of the samples, for the least contributing modality."""
        # Not `run.shuffle`: the epoch's order must be the same where this is not run again.
        generator = torch.Generator().manual_seed(-1 - run.shuffle.initial_seed())
        count = len(phi[run.model.modalities[0]])

        def drawn(share: float) -> Tensor:
            return torch.randint(count, (int(share * count + 1e-9),), generator=generator)

        part = drawn(max(self.part_ratio, 1 / count))
        means = {m: float(x.cpu()[part].double().mean()) for m, x in phi.items()}
        target, share = resampling_share(means, self.alpha, self.gain)
        table = torch.zeros(count, len(phi), dtype=torch.int8)
        table[:, list(phi).index(target)] = drawn(share).bincount(minlength=count).clamp(max=127)
        return table.to(self.counts.device)
