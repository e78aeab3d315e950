"""Every kind of file that equivox reads: how one is made, what reads it, and when that is right."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
from reliability_damage import (
    Damage,
    arrays_changed,
    header_changed,
    json_changed,
    lines_changed,
    opcodes_changed,
    truncated,
    yaml_changed,
)

from equivox.bench import checkpoint, recipe
from equivox.bench.cost_records import costs
from equivox.bench.files import write
from equivox.bench.folder import (
    CONFIG,
    LAST,
    METRICS,
    PREDICTIONS,
    RESULT,
    Folder,
    read_experiment,
)
from equivox.bench.harm import merits
from equivox.bench.jobs import Choice, Job, chosen
from equivox.bench.query import query
from equivox.bench.records import FAILED, FORMAT, RECORD, failures, read, records
from equivox.bench.search import COMPARED, choose
from equivox.bench.sharing import TAKEN, taken
from equivox.bench.training import Result, Training
from equivox.data import cache, load
from equivox.data.decoders.values import Array
from equivox.data.field import Contents, Entry
from equivox.data.pickles import read_pickle

RUN = Path("runs", "latent2_samples=200", "ogm_ge", "seed-0")
COST = Path("cost", "latent2_samples=200", "ogm_ge", RECORD)
NPZ, PROTOCOLS = Path("mfeat", "mfeat.npz"), (2, 4)
RECIPE = """\
data: latent2
method: ogm_ge  # a note
lr: 1e-3
epochs: 3
clip: null
data_options:
  samples: 200
arguments: {alpha: 0.5}
"""


@dataclass(frozen=True)
class File:
    """A file that equivox reads.

    Attributes: `read`, what reads it; `change`, how its structure is damaged; `right`, whether what
    was read is what the file says; `settle`, what is done before it is read.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    change: Damage = json_changed
    right: Callable[[Any], bool] = lambda _: True
    settle: Callable[[], None] = lambda: None


# ── making them ─────────────────────────────────────────────────────────────────────────────────


def corpus(root: Path) -> None:
    """Make one whole file of every kind under a new folder."""
    from equivox.bench.making import make

    make(_job(), root)
    make(_job(trial=0), root)
    choose(root, [_job(trial=0)], 1)
    names = {"data": "latent2:samples=200", "method": "ogm_ge", "seed": 0, "tuned": 0}
    told = {"format": FORMAT, "error": "It diverged.", "kind": "FloatingPointError"}
    write(root / RUN / FAILED, names | told)
    write(root / RUN / TAKEN, {"0123456789abcdef": 1.5})
    (root / COST).parent.mkdir(parents=True)
    write(root / COST, names | {"flops": 1e6, "memory": 4096, "seconds": 0.001, "step": 1.5})
    (root / "recipe.yaml").write_text(RECIPE)
    pixels = numpy.random.default_rng(0).random((40, 9), "f4")
    (root / NPZ).parent.mkdir()
    numpy.savez(
        root / NPZ,
        pixels=pixels,
        split=numpy.arange(40) % 3,
        label=numpy.arange(40) % 4,
        classes=numpy.array(list("abcd")),
    )
    values = {"train": {"vision": pixels, "labels": [1.5, 2], "id": ["a", b"b", {1}]}}
    for protocol in PROTOCOLS:
        (root / f"{protocol}.pkl").write_bytes(pickle.dumps(values, protocol))
    numpy.save(root / "part.npy", pixels)
    _cached(root)


def _job(trial: int | None = None, tuned: int = 0) -> Job:
    data, method = Choice.parse("latent2:samples=200"), Choice("ogm_ge")
    return Job(data, method, 0, epochs=2, trial=trial, tuned=tuned)


# ── reading them ────────────────────────────────────────────────────────────────────────────────


def files(root: Path) -> list[File]:
    """The files of a corpus, while they are whole."""
    run, last, place = root / RUN, root / RUN / LAST, next((root / "cache").iterdir())
    text, npz, trial = root / "recipe.yaml", root / NPZ, _job(trial=0).folder(root) / RECORD
    return [
        _json(run / CONFIG, lambda: read_experiment(run).to_json(), "experiment"),
        _json(run / RESULT, lambda: Result.read(run).to_json()),
        _json(run / RECORD, lambda: next(records(root))),
        _json(run / FAILED, lambda: next(failures(root))),
        _json(chosen(_job(tuned=1), root), lambda: _arguments(root)),
        _json(run / TAKEN, lambda: taken(run)),
        File(f"trial: {RECORD}", trial, lambda: read(trial, COMPARED)),
        File(f"cost: {RECORD}", root / COST, lambda: costs(root)),
        File(METRICS, run / METRICS, lambda: query(root, "SELECT * FROM epochs"), lines_changed),
        File(PREDICTIONS, run / PREDICTIONS, lambda: _merits(run), header_changed),
        File("recipe.yaml", text, lambda: recipe.read(text), yaml_changed),
        *_of_checkpoint(run, last),
        File(f"cache: {cache.INDEX}", place / cache.INDEX, lambda: _cached(root)),
        File("cache: m.bin", place / "m.bin", lambda: _cached(root), truncated),
        File("mfeat.npz", npz, lambda: _mfeat(root), arrays_changed, _sound),
        *(_pickle(root / f"{protocol}.pkl", protocol) for protocol in PROTOCOLS),
    ]


def _json(path: Path, read: Callable[[], Any], part: str = "") -> File:
    """A file of which all values, or those of a part, are read under the names they have there."""

    def right(found: Mapping[str, Any]) -> bool:
        there = json.loads(path.read_bytes())
        return _agree(found, there[part] if part else there)

    return File(path.name, path, read, right=right)


def _agree(found: Any, there: Any) -> bool:
    if isinstance(found, dict) and isinstance(there, dict):
        return all(_agree(found[name], there[name]) for name in set(found) & set(there))
    # `precision` is a word, and 32 is read as "32".
    return json.dumps(found) in (json.dumps(there), json.dumps(str(there)))


def _of_checkpoint(run: Path, last: Path) -> list[File]:
    """The files of a checkpoint; and two as if they had been written so, with hashes that fit."""
    facts, tensors = checkpoint.FACTS, checkpoint.TENSORS
    changes = {checkpoint.MANIFEST: json_changed, facts: json_changed, tensors: header_changed}
    plain = [File(n, last / n, lambda: checkpoint.load(last), x) for n, x in changes.items()]
    for name in (facts, tensors):
        file = File(f"{name}, hashed again", last / name, lambda: _resumed(run), changes[name])
        plain.append(replace(file, settle=lambda: _hash(last)))
    return plain


def _hash(folder: Path) -> None:
    listed = {}
    for name in (checkpoint.TENSORS, checkpoint.FACTS):
        content = (folder / name).read_bytes()
        listed[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write(folder / checkpoint.MANIFEST, {"format": checkpoint.FORMAT, "files": listed})


def _resumed(run: Path) -> None:
    experiment = read_experiment(run)
    data = experiment.load()
    Training(experiment.resolved(data), data).resume(Folder(run, experiment, resume=True))


def _arguments(root: Path) -> dict[str, Any]:
    return {"arguments": _job(tuned=1).experiment(root).arguments}


def _merits(run: Path) -> Any:
    merits.cache_clear()
    return merits(run)


def _cached(root: Path) -> Any:
    part = root / "part.npy"
    contents = Contents({"train": [Entry("a", 0, {"m": part})]}, {"m": Array((40, 9))}, {})
    loads, _ = cache.cached(root / "cache", "set", "v0", contents, root)
    return loads["m"](part)


def _mfeat(root: Path) -> Any:
    return load("mfeat", root=root, modalities="pixels")


def _sound(data: Any) -> bool:
    """Whether every split has samples, and every sample finite numbers and a class."""
    splits = (data.train, data.validation, data.test)
    finite = all(bool(split.inputs["pixels"].isfinite().all()) for split in splits)
    return finite and all(set(split.target.tolist()) <= {0, 1, 2, 3} != set() for split in splits)


def _pickle(path: Path, protocol: int) -> File:
    name = f"pickle of protocol {protocol}"
    return File(name, path, lambda: read_pickle(path), opcodes_changed, _plain)


def _plain(value: Any) -> bool:
    """Whether a value is of what a pickle may hold, all through."""
    if isinstance(value, Mapping):
        return all(_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(_plain(part) for part in value)
    known = (type(None), bool, int, float, complex, str, bytes, bytearray)
    # What an instruction calls stays by itself where that instruction is lost; it is harmless.
    return callable(value) or isinstance(value, (*known, numpy.ndarray, numpy.generic, numpy.dtype))
