"""Data sets: made in memory, bundled with a dependency, read from npz files, or from the files in
which the data sets of the field are distributed (`equivox.data.field`).

>>> data = load("latent2")
>>> data.modalities, len(data.train), round(data.ceilings["easy", "hard"], 3)
(('easy', 'hard'), 3000, 0.993)
>>> inputs, target, index = next(iter(data.loader("train")))
>>> inputs["hard"].shape
torch.Size([64, 16])
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from equivox.data import latent as _latent
from equivox.data import loading as _loading
from equivox.data import npz as _npz
from equivox.data.base import MultimodalData, Recipe, Sample, Samples, Split
from equivox.data.checking import Report, check
from equivox.data.digits import digits
from equivox.data.latent import LatentModality
from equivox.errors import nearest

__all__ = [
    "LatentModality",
    "MultimodalData",
    "Recipe",
    "Report",
    "Sample",
    "Samples",
    "Split",
    "check",
    "fake",
    "load",
    "names",
]

_MAKERS: dict[str, Callable[..., MultimodalData]] = {
    "latent": _latent.latent,
    "latent2": partial(_latent.latent, modalities=_latent.LATENT2),
    "latent3": partial(_latent.latent, modalities=_latent.LATENT3),
    "balanced": partial(_latent.latent, modalities=_latent.BALANCED),
    "noise": partial(_latent.latent, modalities=_latent.NOISE),
    "redundant": _latent.redundant,
    "xor": _latent.xor,
    "latent_regression": _latent.regression,
    "digits": digits,
    **_npz.SETS,
}


def names() -> tuple[str, ...]:
    """The data sets that `load` knows."""
    return (*_MAKERS, *_loading.names())


def load(name: str, seed: int = 0, **options: Any) -> MultimodalData:
    """A data set by its name.

    :param name: One of `names()`.
    :param seed: The draw of the data, apart from the seed of a model. Files hold one draw: for them
        it changes only what some sets draw themselves: a smaller training set, a split, colours.
    :param options: What the data set offers, for example `load("digits", variant="iid")` or
        `load("crema_d", root="CREMA-D", workers=2)`; those that all field sets share are described
        in `equivox.data.loading.load`.
    :raises ValueError: For an unknown name, option or value, with the nearest known one.
    :raises FileNotFoundError: Where a file set is not found; see `EQUIVOX_DATA`.
    """
    if name not in names():
        raise ValueError(
            f"The data set should be a known one. Found `{name!r}`. {nearest(name, names())}"
        )
    if name not in _MAKERS:
        return _loading.load(name, seed, **options)
    known = [p.name for p in inspect.signature(_MAKERS[name]).parameters.values()][2:]
    _loading.check_options(f"`{name}`", options, known)
    return _MAKERS[name](name, seed, **options)


def fake(name: str, out: str | Path, seed: int = 0, **form: Any) -> None:
    """Write a tiny data set in the real layout of a field set, with real encodings.

    :param out: A new or empty folder: the set's root.
    :param form: Where a set comes in several, for example `visual="hdf5"`.
    :raises FileExistsError: Where the folder holds something.
    :raises ValueError: For a set that does not lie in files, or a form that it does not have.
    """
    write = _loading.module(name).fake
    _loading.check_options(f"a fake `{name}`", form, list(inspect.signature(write).parameters)[2:])
    write(Path(out), seed, **form)
