"""What the checks of the data look at: the inputs of a split as tables, read in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.features import leaves
from equivox.method import Batch
from equivox.model import Multimodal
from equivox.randomness import preserved_random_state

MOST_COLUMNS = 512
"""Inputs with more values a sample are averaged over neighbours."""

MOST_ROWS = 5000
"""So many samples of a split are compared column by column; all of them are checked and hashed."""

SUPPORT = 20.0
"""The least number of samples that a correlation should rest on, (sum z^2)^2 / sum z^4: two rare
pixels that light up in the same image correlate perfectly."""


@dataclass(frozen=True)
class Table:
    """What is kept of one modality's inputs in one split.

    Attributes: `columns` (kept samples, columns), the values in float32, padding and what is not
    finite as zero; `hashes` (samples,) of the values; `bad` (samples,), whether there is NaN or
    infinity; `there` (samples,), whether the modality is; `moments`, the number, sum and sum of
    squares of the floating values; `plain`, whether it is one floating vector a sample.
    """

    columns: Tensor
    hashes: Tensor
    bad: Tensor
    there: Tensor
    moments: Tensor
    plain: bool

    @property
    def deviation(self) -> float:
        """The standard deviation of the floating values."""
        return deviation(self.moments)


@dataclass(frozen=True)
class Split:
    """One split: its tables, targets and sample numbers, and which `rows` the columns are of."""

    name: str
    tables: Mapping[str, Table]
    target: Tensor
    index: Tensor
    rows: Tensor

    def there(self, *modalities: str) -> Tensor:
        """(kept samples,) whether all these modalities are there."""
        return torch.stack([self.tables[m].there[self.rows] for m in modalities]).all(0)

    @property
    def seen(self) -> Tensor:
        """The targets of the kept samples."""
        return self.target[self.rows]


def read(model: Multimodal, loader: Iterable[Any], name: str) -> Split:
    """One pass over a loader, on the CPU, of which little is kept.

    :raises ValueError: For an empty loader, or batches that are not of the model's modalities.
    """
    stride = max(_size(loader) // MOST_ROWS, 1)
    parts: list[tuple[dict[str, Table], Tensor, Tensor, Tensor]] = []
    begun = 0
    with preserved_random_state(loader), torch.no_grad():
        for item in loader:
            batch = Batch.of(item).to("cpu")
            model.check(batch.inputs)
            index = torch.arange(begun, begun + len(leaves(batch.target)[0]))
            kept = scrambled(index + 1) % stride == 0
            tables = {m: _table(batch.inputs, m, kept) for m in model.modalities}
            own = index if batch.index is None else batch.index
            parts.append((tables, _plain_target(batch.target), own, index[kept]))
            begun += len(index)
    if not parts:
        raise ValueError(f"The {name} loader should yield a batch. Found it empty.")
    tables_, targets, numbers, rows = zip(*parts, strict=True)
    joined = {m: _joined([t[m] for t in tables_]) for m in model.modalities}
    return Split(name, joined, torch.cat(targets), torch.cat(numbers), torch.cat(rows))


def _size(loader: Any) -> int:
    """The number of samples, zero where it is not known."""
    dataset: Any = getattr(loader, "dataset", None)
    return len(dataset) if hasattr(dataset, "__len__") else 0


def _plain_target(target: Any) -> Tensor:
    found = leaves(target)
    if len(found) != 1:
        raise ValueError(f"A target should be one tensor. Found {len(found)}.")
    return found[0]


def _table(inputs: Mapping[str, Any], modality: str, kept: Tensor) -> Table:
    count = len(kept)
    there = inputs.get("present", {}).get(modality, True)
    there = there if isinstance(there, Tensor) else torch.full((count,), there)
    if modality not in inputs:
        return _empty(kept)
    contents = _contents(inputs[modality])
    flat = [_clean(x, there) for x, _ in contents]
    return Table(
        torch.cat([_pooled(x[kept]) for x in flat], 1),
        torch.stack([_hashed(x, salt) for salt, x in enumerate(flat)]).sum(0),
        torch.stack([~finite(x) for x, _ in contents]).any(0) & there,
        there,
        torch.stack([_moments(x, v & _beside(there, x)) for x, v in contents]).sum(0),
        len(contents) == 1 and contents[0][0].ndim < 3 and contents[0][0].is_floating_point(),
    )


def _empty(kept: Tensor) -> Table:
    """The table of a modality that a batch lacks."""
    nothing = torch.zeros(len(kept), dtype=torch.long)
    none, moments = nothing.bool(), torch.zeros(3, dtype=torch.float64)
    return Table(torch.zeros(int(kept.sum()), 0), nothing, none, none, moments, True)


def _joined(tables: Sequence[Table]) -> Table:
    """The tables of the batches as one; shorter ones are filled with zeros."""
    width = max(t.columns.shape[1] for t in tables)
    return Table(
        torch.cat([F.pad(t.columns, (0, width - t.columns.shape[1])) for t in tables]),
        torch.cat([t.hashes for t in tables]),
        torch.cat([t.bad for t in tables]),
        torch.cat([t.there for t in tables]),
        torch.stack([t.moments for t in tables]).sum(0),
        all(t.plain for t in tables),
    )


def _contents(x: Any) -> list[tuple[Tensor, Tensor]]:
    """The tensors of an input, padding as zero, and whether each value is none; no masks."""
    named = _named(x)
    mask = _padding(named)
    found = []
    for _, leaf in named:
        if leaf is mask:
            continue
        valid = torch.ones(1, dtype=torch.bool)
        if mask is not None and leaf.shape[:2] == mask.shape:
            valid = _beside(~mask if mask.dtype == torch.bool else mask != 0, leaf)
        found.append((torch.where(valid, leaf, torch.zeros((), dtype=leaf.dtype)), valid))
    return found


def _named(x: Any, name: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(x, Mapping):
        return [pair for key, part in x.items() for pair in _named(part, str(key))]
    return [(name, leaf) for leaf in leaves(x)]


def _padding(named: list[tuple[str, Tensor]]) -> Tensor | None:
    """The (batch, time) mask among the tensors of an input, as `features.padding` reads it."""
    found = [
        (x.dtype != torch.bool, "mask" not in name, number)
        for number, (name, x) in enumerate(named)
        if (number or "mask" in name) and x.ndim == 2 and not x.is_floating_point() and x.max() <= 1
        if any(other is not x and other.shape[:2] == x.shape for _, other in named)
    ]
    return named[min(found)[-1]][1] if found else None


def _beside(rows: Tensor, x: Tensor) -> Tensor:
    """A mask of the first axes with as many axes as x."""
    return rows.view(*rows.shape, *[1] * (x.ndim - rows.ndim))


def _clean(x: Tensor, there: Tensor) -> Tensor:
    """(samples, values) with zeros where the modality is not there."""
    x = torch.view_as_real(x) if x.is_complex() else x
    return torch.where(there[:, None], x.reshape(len(x), -1), torch.zeros((), dtype=x.dtype))


def _pooled(flat: Tensor) -> Tensor:
    wide = flat.float().nan_to_num(0.0, 0.0, 0.0)
    if wide.shape[1] <= MOST_COLUMNS:
        return wide
    return F.adaptive_avg_pool1d(wide[:, None], MOST_COLUMNS)[:, 0]


def finite(x: Tensor) -> Tensor:
    """(samples,) whether all values are finite."""
    return x.isfinite().reshape(len(x), -1).all(1)


def _moments(x: Tensor, counted: Tensor) -> Tensor:
    if not x.is_floating_point():
        return torch.zeros(3, dtype=torch.float64)
    chosen = counted & x.isfinite()
    wide = torch.where(chosen, x, torch.zeros((), dtype=x.dtype)).double()
    return torch.stack([chosen.sum().double(), wide.sum(), wide.square().sum()])


def deviation(moments: Tensor) -> float:
    """The standard deviation of values, from their number, sum and sum of squares."""
    count, total, squares = moments.tolist()
    return max(squares / max(count, 1) - (total / max(count, 1)) ** 2, 0.0) ** 0.5


def standardised(x: Tensor, support: float = SUPPORT) -> tuple[Tensor, Tensor]:
    """Columns of mean zero and length one, zero where they vary too little; and which do not."""
    wide = x.float()
    centred = wide - wide.mean(0, dtype=torch.float64).float()
    length = centred.norm(dim=0)
    varies = length > 1e-6 * wide.norm(dim=0)  # more than rounding
    z = torch.where(varies, centred / length.clamp(min=1e-30), 0)
    usable = varies & (1 / z.square().square().sum(0).clamp(min=1e-30) >= support)
    return torch.where(usable, z, 0), usable


def _hashed(flat: Tensor, salt: int) -> Tensor:
    """(samples,) a 64-bit number of each row; zeros at its end, such as padding, do not count."""
    bits = _bits(flat)
    place = torch.arange(1, bits.shape[1] + 1) + (salt << 40)
    for _ in range(3):  # far from the counting that it was
        place = scrambled(place)
    return scrambled(scrambled(bits).mul_(place | 1)).sum(1)


def _bits(flat: Tensor) -> Tensor:
    """The values of each row as 64-bit numbers, several in one where they are smaller."""
    if not flat.is_floating_point():
        return flat.long()
    several = 8 // flat.element_size()
    whole = F.pad(flat, (0, -flat.shape[1] % several)) + 0.0  # one zero, not two
    return whole.contiguous().view(torch.int64)


def scrambled(x: Tensor) -> Tensor:
    """Other 64-bit numbers, one for each; zero for zero."""
    y = x * 0x5851F42D4C957F2D  # odd, as a one-to-one map needs
    high = (y >> 31).bitwise_and_(0x1FFFFFFFF)
    return y.bitwise_xor_(high).mul_(0x2545F4914F6CDD1D)
