"""The loaders of a diagnosis: refused where they cannot serve, read without what is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.errors import nearest
from equivox.features import leaves, map_tensors
from equivox.method import Batch
from equivox.model import evaluating
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer

Loaders = Mapping[str, Iterable[Any]]
SPLITS = ("train", "validation", "test")
LEAST = 2
"""Samples of a split: modalities are exchanged between samples."""


class Reading:
    """A loader read in another way; whatever else is asked of it, such as its generator, is its."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not there yet, while it is copied
            raise AttributeError(name)
        return getattr(self.loader, name)


class Finite(Reading):
    """The samples of a loader in which all is finite, each with its number.

    The number is the loader's, or else the place of the sample in it. `kept` counts the samples of
    the latest whole pass. What a batch declares absent may hold anything, and so may the modalities
    in `lost`, which are declared absent from all samples.

    Raises ValueError at the end of a pass that leaves fewer than two samples.

    >>> x = torch.tensor([[1.0], [torch.nan], [3.0]])
    >>> [index for _, _, index in Finite([({"a": x}, torch.tensor([0, 1, 0]))], "test")]
    [tensor([0, 2])]
    """

    def __init__(self, loader: Iterable[Any], name: str, lost: Sequence[str] = ()) -> None:
        super().__init__(loader)
        self.name = name
        self.lost = lost
        self.kept = 0

    def __iter__(self) -> Iterator[Any]:
        total, kept = 0, 0
        left_out: dict[str, int] = {}
        for item in self.loader:
            batch = _absent(Batch.of(item), self.lost)
            bad = _bad(batch)
            good = ~torch.stack(list(bad.values())).any(0)
            batch = batch if batch.index is not None else _numbered(batch, total, len(good))
            total, kept = total + len(good), kept + int(good.sum())
            if bool(good.all()):
                yield batch.items()
                continue
            for what, rows in bad.items():
                left_out[what] = left_out.get(what, 0) + int(rows.sum())
            if bool(good.any()):
                yield _rows(batch, good).items()
        self.kept = kept
        if kept < LEAST:
            raise ValueError(_too_few(self.name, kept, total, left_out))


def _too_few(name: str, kept: int, total: int, left_out: Mapping[str, int]) -> str:
    rule = f"The {name} data should have {LEAST} samples or more in which all is finite."
    found = f"Found {kept} of {total}"
    bad = [f"NaN or infinity in {n} of {what}" for what, n in left_out.items() if n]
    if bad:
        return f"{rule} {found}: {', '.join(bad)}. Repair these samples where they are read."
    return f"{rule} {found}. Pass a loader of more samples."


def _bad(batch: Batch) -> dict[str, Tensor]:
    """(samples,) whether something is not finite, by what it is."""
    present = batch.inputs.get("present", {})
    found = {"the target": _nonfinite(batch.target)}
    for name, x in batch.inputs.items():
        there = present.get(name, True) if name != "present" else False
        if there is not False:
            found[f"`{name}`"] = _nonfinite(x) & there
    return found


def _nonfinite(x: Any) -> Tensor:
    rows = [~leaf.isfinite().reshape(len(leaf), -1).all(1) for leaf in leaves(x)]
    return torch.stack(rows).any(0)


def _absent(batch: Batch, lost: Sequence[str]) -> Batch:
    """The batch with these modalities declared absent."""
    if not lost:
        return batch
    nobody = torch.zeros_like(_nonfinite(batch.target))
    present = {**batch.inputs.get("present", {}), **dict.fromkeys(lost, nobody)}
    return batch.with_(inputs={**batch.inputs, "present": present})


def _numbered(batch: Batch, begun: int, count: int) -> Batch:
    return batch.with_(index=torch.arange(begun, begun + count))


def _rows(batch: Batch, chosen: Tensor) -> Batch:
    """Some samples of a batch."""
    parts = (batch.inputs, batch.target, batch.index)
    inputs, target, index = map_tensors(lambda x: x[chosen.to(x.device)], parts)
    return batch.with_(inputs=inputs, target=target, index=index)


# ── what cannot serve ───────────────────────────────────────────────────────────────────────────


def checked(loaders: Loaders, balancer: Balancer) -> dict[str, Finite]:
    """The loaders by split, after a look at the first batch of each.

    A modality that holds nothing finite in one of the splits is lost to all of them.

    Raises ValueError for splits that are missing or unknown, iterators, which can be read but once,
    batches that are not of the model's modalities, targets that are not the task's, and where every
    modality is lost.
    """
    _check_names(loaders)
    lost: dict[str, str] = {}
    for split in SPLITS:
        loader = loaders[split]
        if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
            raise TypeError(
                "A loader should be one that can be read again and again. Found "
                f"`{type(loader).__name__}` for `{split}`. Pass a `DataLoader` or a list of "
                "batches."
            )
        suspects = _check_first(split, loader, balancer)
        lost = dict.fromkeys(_lost(loader, suspects), split) | lost
    if len(lost) == len(balancer.model.modalities):
        where = ", ".join(f"`{m}` of the {split} data" for m, split in lost.items())
        raise ValueError(
            "A modality should hold something finite. Found NaN or infinity in every sample of "
            f"{where}. Repair them where they are read."
        )
    return {split: Finite(loaders[split], split, tuple(lost)) for split in SPLITS}


def _lost(loader: Iterable[Any], suspects: Sequence[str]) -> list[str]:
    """Those of the modalities that hold NaN or infinity in every sample."""
    left = list(suspects)
    with preserved_random_state(loader):
        for item in loader if left else ():
            left = _all_bad(Batch.of(item), left)
            if not left:
                break
    return left


def _all_bad(batch: Batch, modalities: Sequence[str]) -> list[str]:
    bad = _bad(batch)
    return [m for m in modalities if f"`{m}`" in bad and bool(bad[f"`{m}`"].all())]


def _check_names(loaders: Loaders) -> None:
    lacking = [split for split in SPLITS if loaders.get(split) is None]
    if lacking:
        raise ValueError(
            f"A diagnosis needs the loaders {list(SPLITS)}. Found no {lacking}. The validation "
            "data may be a part of the training data that was held out."
        )
    for name in loaders:
        if name not in SPLITS:
            raise ValueError(
                f"Loaders should be those of {list(SPLITS)}. Found `{name}`. "
                f"{nearest(name, SPLITS)}"
            )


def _check_first(split: str, loader: Iterable[Any], balancer: Balancer) -> list[str]:
    """The modalities of which the first batch holds nothing finite."""
    device = next(balancer.parameters()).device
    with torch.no_grad(), preserved_random_state(loader), evaluating(balancer):
        for item in loader:
            batch = Batch.of(item).to(device)
            try:
                check_whole(balancer, batch)
                balancer.task.loss(balancer.model(batch.inputs).logits, batch.target)
            except ValueError as error:
                raise ValueError(f"The {split} data do not fit the network. {error}") from error
            return _all_bad(batch, balancer.model.modalities)
    return []


def check_whole(balancer: Balancer, batch: Batch) -> None:
    """Raise ValueError for a batch that lacks a modality of the model, or has another one."""
    model = balancer.model
    model.check(batch.inputs)
    for modality in model.modalities:
        absent = batch.inputs.get("present", {}).get(modality, True) is False
        if absent or modality not in batch.inputs:
            raise ValueError(
                f"Every batch of a diagnosis should hold every modality. Found no `{modality}`. "
                "Give the samples that lack it anything, and declare them absent by a mask: "
                f'`inputs["present"] = {{"{modality}": mask}}`.'
            )
