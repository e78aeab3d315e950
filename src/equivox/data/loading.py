"""Loading a field data set: its folder, its options, missing files, the cache."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import pkgutil
import shlex
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from equivox.data import sets
from equivox.data.base import SPLITS, MultimodalData
from equivox.data.field import Contents, Decoded, Entry
from equivox.data.tables import counted
from equivox.errors import nearest

VERSION = 2
"""Of the code that decodes: raised whenever the same decoder gives other numbers than before."""

COMMON = ("root", "workers", "cache", "preprocessing", "tolerance", "exclude")
"""Options of every field set, beside those of its own `read`."""

SHOWN = 5


def names() -> tuple[str, ...]:
    """The field sets, in order of their names; none is imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(sets.__path__)))


def module(name: str) -> ModuleType:
    """The module of a set; ValueError for an unknown one, with the nearest."""
    if name not in names():
        raise ValueError(
            f"The data set should be one that lies in files. Found `{name}`. "
            f"{nearest(name, names())}"
        )
    return importlib.import_module(f"{sets.__name__}.{name}")


def options(name: str) -> tuple[str, ...]:
    """The options of a set's own."""
    known = inspect.signature(module(name).read).parameters
    return tuple(option for option in list(known)[1:] if option != "seed")


def check_options(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse an unknown option, with the nearest known one."""
    for option in given:
        if option not in known:
            raise ValueError(
                f"Options of {what} are {', '.join(f'`{k}`' for k in known) or 'none'}. "
                f"Found `{option}`." + (f" {nearest(option, known)}" if known else "")
            )


def load(
    name: str,
    seed: int = 0,
    *,
    root: str | Path | None = None,
    workers: int = 0,
    cache: str | Path | None = None,
    preprocessing: str | None = None,
    tolerance: float = 0.01,
    exclude: str | Sequence[str] = (),
    **own: Any,
) -> MultimodalData:
    """A field data set.

    :param seed: Of a split that the set draws itself, where it does.
    :param root: Its folder; `$EQUIVOX_DATA/<name>` where not given.
    :param workers: Processes that decode; how many changes no value.
    :param cache: A folder for decoded files, see `equivox.data.cache`.
    :param preprocessing: The preprocessing id that it must have, as results name it.
    :param tolerance: The share of a split whose files may be missing. Such samples are left out
        with a warning that names them; above that share it is an error.
    :param exclude: Ids of samples to leave out, such as those that a check found damaged; in one
        text, commas separate them.
    :param own: The set's own options.
    :raises FileNotFoundError: For a wrong root or too many missing files.
    :raises ValueError: For an unknown option or class, malformed lists, duplicate ids, an empty
        split or another preprocessing.
    """
    place, contents = read(name, seed, root, own)
    contents, left_out = without(contents, exclude)
    exclude = named(exclude, left_out["excluded"])
    _check_ids(name, contents)
    contents, missing = _present(_check_command(name, place, own), contents, tolerance)
    _check_splits(name, contents)
    version = preprocessing_id(name, contents)
    if preprocessing not in (None, version):
        raise ValueError(
            f"`{name}` should be preprocessed as `{preprocessing}`. Found `{version}` with this "
            "version of equivox and these options: results of both do not compare. Leave "
            "`preprocessing` out, or go back to what the results were made with."
        )
    loads, facts = None, dict[str, Any]()
    if cache is not None:
        from equivox.data.cache import cached

        loads, folder = cached(Path(cache), name, version, contents, place)
        facts["cache"] = str(folder)
    chosen = _chosen(name, seed, root, tolerance, exclude, own) | {"preprocessing": version}
    train, validation, test = (
        Decoded(contents.entries[split], contents.decoders, split == "train", loads)
        for split in SPLITS
    )
    return MultimodalData(
        name,
        chosen,
        train,
        validation,
        test,
        architectures=contents.architectures,
        recipe=contents.recipe,
        fusion=contents.fusion,
        classes=contents.classes,
        target_scale=contents.target_scale,
        facts=facts | _facts(contents, version, missing, left_out),
        workers=workers,
    )


def read(
    name: str, seed: int, root: str | Path | None, own: Mapping[str, Any]
) -> tuple[Path, Contents]:
    """The folder of a set and what its `read` finds there."""
    reader = module(name).read
    check_options(f"`{name}`", own, (*options(name), *COMMON))
    place = _folder(name, root)
    seeded = {"seed": seed} if "seed" in inspect.signature(reader).parameters else {}
    return place, reader(place, **seeded, **own)


def _folder(name: str, root: str | Path | None) -> Path:
    given = root if root is not None else os.environ.get("EQUIVOX_DATA")
    if not given:
        raise FileNotFoundError(
            f"`{name}` is read from a folder. Found none to look in. Pass `root`, the folder of "
            f"the set, or set the environment variable `EQUIVOX_DATA` to that which holds `{name}`."
        )
    place = Path(given).expanduser() / ("" if root is not None else name)
    if not place.is_dir():
        raise FileNotFoundError(
            f"The root of `{name}` should be a folder. Found no folder `{place}`. "
            f"`equivox data fake {name} --out DIR` writes a tiny example of its layout."
        )
    return place


def preprocessing_id(name: str, contents: Contents) -> str:
    """Stands for everything that turns the files of a set into a model's inputs, but the seed."""
    text = f"{VERSION} {name} {contents.decoders!r}"
    return f"v{VERSION}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


# ── what is left out ────────────────────────────────────────────────────────────────────────────


def named(exclude: Any, known: Container[str]) -> list[str]:
    """Ids in a list, or as the command line has them: one, several between commas, numbers."""
    if isinstance(exclude, str):
        return [exclude] if exclude in known else [id_.strip() for id_ in exclude.split(",")]
    return [str(id_) for id_ in (exclude if isinstance(exclude, Iterable) else [exclude])]


def without(contents: Contents, exclude: Any) -> tuple[Contents, dict[str, list[str]]]:
    """Without the samples of these ids, all of which must be there."""
    known = {entry.id for entries in contents.entries.values() for entry in entries}
    wanted = set(named(exclude, known))
    if unknown := sorted(wanted - known):
        raise ValueError(
            f"`exclude` should name samples. Found `{unknown[0]}`. {nearest(unknown[0], known)}"
        )
    entries = {s: [e for e in part if e.id not in wanted] for s, part in contents.entries.items()}
    left_out = {rule: list(ids) for rule, ids in contents.left_out.items()}
    return replace(contents, entries=entries), left_out | {"excluded": sorted(wanted)}


def missing_files(contents: Contents, entry: Entry) -> list[Path]:
    """The files of a sample that are not there."""
    return [
        path
        for modality, decoder in contents.decoders.items()
        for path in decoder.missing(entry.sources[modality])
    ]


def _check_command(name: str, root: Path, own: Mapping[str, Any]) -> str:
    """The command that names what is missing or damaged."""
    options = [word for option, x in own.items() for word in ("--option", f"{option}={x}")]
    return shlex.join(["equivox", "data", "check", name, "--root", str(root), *options])


def _present(
    command: str, contents: Contents, tolerance: float
) -> tuple[Contents, dict[str, list[str]]]:
    """The samples whose files are there, and the ids of the others; `command` names all of them."""
    if not 0 <= tolerance <= 1:
        raise ValueError(f"`tolerance` should lie in [0, 1]. Found `tolerance = {tolerance}`.")
    kept: dict[str, list[Entry]] = {}
    missing: dict[str, list[str]] = {}
    for split, entries in contents.entries.items():
        lacking = {e.id: files for e in entries if (files := missing_files(contents, e))}
        kept[split] = [entry for entry in entries if entry.id not in lacking]
        missing[split] = list(lacking)
        if lacking:
            files = [path for found in lacking.values() for path in found]
            _tell_missing(command, split, files, len(lacking), len(entries), tolerance)
    return replace(contents, entries=kept), missing


def _tell_missing(
    command: str, split: str, files: list[Path], bad: int, all_: int, tolerance: float
) -> None:
    shown = ", ".join(f"`{path}`" for path in files[:SHOWN])
    found = (
        f"Found files missing of {bad} of {all_} samples of {split}: {shown}"
        f"{', …' if len(files) > SHOWN else ''}."
    )
    way_out = f"All are named by `{command}`"
    if bad > tolerance * all_:
        raise FileNotFoundError(
            f"At most {tolerance:.1%} of a split may be missing. {found} {way_out}. Copy them, or "
            "raise `tolerance`: those samples are then left out."
        )
    warnings.warn(f"{found} They are left out. {way_out}.", UserWarning, stacklevel=5)


# ── checks and facts ────────────────────────────────────────────────────────────────────────────


def _check_ids(name: str, contents: Contents) -> None:
    twice = counted(entry.id for entries in contents.entries.values() for entry in entries)
    if twice:
        shown = ", ".join(f"`{i}` ({times} times)" for i, times in list(twice.items())[:SHOWN])
        raise ValueError(
            f"A sample of `{name}` should be listed once, in one split. Found {len(twice)} listed "
            f"more often: {shown}. Take them out of the lists."
        )


def _check_splits(name: str, contents: Contents) -> None:
    for split in SPLITS:
        if not contents.entries.get(split):
            raise ValueError(
                f"Every split of `{name}` should have samples. Found none in {split}. See "
                f"`equivox data check {name}`."
            )
    for entries in contents.entries.values():
        for entry in entries:
            target, classes = entry.target, contents.classes
            if classes and not (isinstance(target, int) and 0 <= target < len(classes)):
                raise ValueError(
                    f"Targets of `{name}` should be numbers of its {len(classes)} classes. Found "
                    f"{target!r} for `{entry.id}`."
                )


def _chosen(
    name: str,
    seed: int,
    root: str | Path | None,
    tolerance: float,
    exclude: Sequence[str],
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """The options with the set's defaults; those that change nothing are left out."""
    known = inspect.signature(module(name).read).parameters
    chosen = {"seed": seed} | {option: known[option].default for option in options(name)}
    chosen |= dict(own)
    chosen |= {} if root is None else {"root": str(root)}
    chosen |= {} if tolerance == 0.01 else {"tolerance": tolerance}
    return chosen | ({} if not exclude else {"exclude": list(exclude)})


def _facts(
    contents: Contents, version: str, missing: Mapping[str, Any], left_out: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "preprocessing": version,
        "decoders": {modality: repr(decoder) for modality, decoder in contents.decoders.items()},
        "samples": {split: len(entries) for split, entries in contents.entries.items()},
        "missing": dict(missing),
        "left_out": dict(left_out),
    }
