"""What becomes of damaged files when they are read, in processes that may die of them."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

from reliability_damage import BYTES
from reliability_files import File, corpus, files
from reliability_kills import ended

OURS = (ValueError, TypeError, FileNotFoundError, OSError)
SECONDS, SILENCE = 5, 120
"""Of the processor, that a reader may take; of the clock, after which a process is given up."""
MEMORY = 128 * 2**20
"""By which a process may grow over one of these files, of which the largest has 200 KB."""
STRUCTURE = 0.6
"""The share of files whose structure is damaged; of the others the bytes are."""
CHUNK = 100
"""Files that one process reads."""


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged file: "refused", "accepted" or "broken", and then how."""

    number: int
    file: str
    what: str
    why: str = ""


class Slow(BaseException):
    """A reader has taken its time; no reader may take this for an error of its own."""


def read_all(count: int, seed: int, jobs: int, out: Path) -> list[Outcome]:
    """The outcomes of so many damaged files, the same for the same seed."""
    if not count:
        return []
    whole = out / "corpus"
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        pool.submit(corpus, whole).result()
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        found = pool.map(read_chunk, chunks, [seed] * len(chunks), [whole] * len(chunks))
        return [outcome for chunk in found for outcome in chunk]


def read_chunk(numbers: Sequence[int], seed: int, whole: Path) -> list[Outcome]:
    """The outcomes of some files; where a process dies of one, another one reads the rest."""
    found: list[Outcome] = []
    kinds = files(whole)
    while len(found) < len(numbers):
        with tempfile.TemporaryDirectory() as place:
            process = os.fork()
            if not process:
                _read_in_child(numbers[len(found) :], seed, whole, Path(place))
            code = ended(process, SILENCE)
            if code is None:
                os.kill(process, signal.SIGKILL)
                ended(process, SILENCE)
            told = Path(place, "told.jsonl").read_text().splitlines()
        found += [Outcome(**json.loads(line)) for line in told]
        if len(found) < len(numbers):
            number = numbers[len(found)]
            why = "the process hangs" if code is None else f"the process ended with {code}"
            found.append(Outcome(number, kinds[number % len(kinds)].name, "broken", why))
    return found


def _read_in_child(numbers: Sequence[int], seed: int, whole: Path, place: Path) -> NoReturn:
    """Read files one after another, tell of each at once, and end the process."""
    code = 70
    try:
        warnings.simplefilter("ignore")
        with (place / "told.jsonl").open("w") as told:
            root = Path(shutil.copytree(whole, place / "corpus"))
            kinds = files(root)
            resource.setrlimit(resource.RLIMIT_AS, (_reserved() + 8 * MEMORY,) * 2)
            for number in numbers:
                told.write(json.dumps(asdict(read_damaged(number, seed, root, kinds))) + "\n")
                told.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def read_damaged(number: int, seed: int, root: Path, kinds: Sequence[File]) -> Outcome:
    """Damage a file of a corpus, read it, and put everything right again."""
    file, draw = kinds[number % len(kinds)], random.Random(f"{seed} {number}")
    kept = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    damage = file.change if draw.random() < STRUCTURE else draw.choice(BYTES)
    file.path.write_bytes(damage(kept[file.path], draw))
    file.settle()
    before = _most()
    what, why = _outcome(file)
    for path, whole in kept.items():
        if path.read_bytes() != whole:  # a file of another time would make its cache a stale one
            path.write_bytes(whole)
    if (grown := _most() - before) > MEMORY:
        what, why = "broken", f"{grown / 2**20:.0f} MiB of memory for a small file"
    return Outcome(number, file.name, what, f"{damage.__name__}: {why}" if why else "")


def _outcome(file: File) -> tuple[str, str]:
    before = signal.signal(signal.SIGPROF, _slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        found = file.read()
    except Slow:
        return "broken", f"takes more than {SECONDS} s"
    except BaseException as error:  # whatever it is, it is what this benchmark looks for
        clear = type(error) in OURS and str(file.path.parent) in str(error) and "`" in str(error)
        if clear and not isinstance(error.__cause__, MemoryError):
            return "refused", ""
        return "broken", f"{error!r:.300}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return ("accepted", "") if file.right(found) else ("broken", f"read as {found!r:.300}")


def _slow(*_: object) -> NoReturn:
    raise Slow


def _most() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reserved() -> int:
    """The memory that this process has reserved, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
