"""One training from an experiment to its result: in memory, or in a folder that can be resumed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from filelock import FileLock, Timeout

from equivox.bench.ending import Terminated, on_termination, terminated
from equivox.bench.experiment import Experiment
from equivox.bench.folder import BEST, CONFIG, Folder, read_best, read_experiment
from equivox.bench.loop import Measure, Training, Watch, Wrap
from equivox.bench.result import Result, protocol
from equivox.data import MultimodalData
from equivox.distributed import rank
from equivox.randomness import preserved_random_state
from equivox.run import asking

__all__ = ["Result", "Terminated", "Training", "protocol", "restored", "train"]


def train(
    experiment: Experiment,
    out: Path | None = None,
    *,
    resume: bool = False,
    watch: Watch | None = None,
    measure: Measure | None = None,
    device: str = "cpu",
    every: float | None = None,
    locked: bool = False,
) -> Result:
    """Train, choose an epoch on the validation data, and look at the test data once, at the end.

    Arguments:
        experiment: what to train.
        out: the run's folder, from which it can be resumed; in memory only where None.
        resume: go on with the run in `out`. The result is bit for bit that of a run without a cut.
        watch: is given the record of every epoch, with its `seconds`.
        measure: further numbers of every epoch, from the balancer and the data; they join the
            record. The random state is kept around it. Where it has a method `begin`, that is
            given the `Training` before it begins or goes on.
        device: where to train.
        every: seconds from one checkpoint to the next in the middle of an epoch; None for one at
            the end of every epoch alone. It does not change the result.
        locked: whether the caller holds the folder's lock, `lock_of(out)`.

    The random state outside is untouched. SIGTERM, with a folder and in the main thread, ends the
    run after the present update with a checkpoint; a trial training that a method makes before an
    epoch, such as a teacher's, is made again. One process at a time works on a folder. Several
    `devices` are processes of their own: they need a folder, `watch` and `measure` have to be such
    as can be pickled, and a script has to guard its start by `if __name__ == "__main__"`.

    Raises Terminated after SIGTERM, FloatingPointError for a loss that is not finite,
    ChildProcessError for a process that was killed, BlockingIOError where another one is at this
    run, and what `Folder` raises.

    >>> result = train(Experiment("latent2", epochs=1, data_options={"samples": 600}))
    >>> sorted(result.last["test"])
    ['accuracy', 'f1', 'loss']
    """
    if resume and out is None:
        raise ValueError("A run is resumed from its folder. Found `out = None`. Pass `out`.")
    data = experiment.load()
    _check(experiment.resolved(data), data, device)
    options: dict[str, Any] = {
        "watch": watch,
        "measure": measure,
        "device": device,
        "every": every,
    }
    with nullcontext() if out is None or locked else _alone(out):
        if experiment.devices > 1:
            return _launched(experiment, out, resume, options)
        asked: list[bool] = []
        ending = nullcontext() if out is None else on_termination(lambda: asked.append(True))
        with ending:
            folder = None if out is None else Folder(out, experiment, resume)
            with asking(partial(_end, folder, asked)):
                return _trained(experiment, data, folder, lambda: bool(asked), **options)


def lock_of(out: Path) -> Path:
    """The file that whoever works on a run locks."""
    return out.parent / f".{out.name}.lock"


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuse a run that another process is at."""
    lock = FileLock(lock_of(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(
            f"A run is made by one process at a time. Found another one at `{out}`. Wait for it."
        ) from error
    except OSError:
        pass  # where nothing can be written the folder says so
    try:
        yield
    finally:
        lock.release()


def _end(folder: Folder | None, asked: Sequence[bool]) -> None:
    """End in the middle of a trial training: it is made again from the last checkpoint."""
    if asked and folder is not None:
        raise terminated(folder.path)


def _trained(
    experiment: Experiment,
    data: MultimodalData,
    folder: Folder | None,
    asked: Callable[[], bool],
    *,
    watch: Watch | None,
    measure: Measure | None,
    device: str,
    every: float | None,
    wrap: Wrap | None = None,
) -> Result:
    """Train in this process; from the folder's checkpoint, where it holds one."""
    with preserved_random_state():
        _seed(experiment.seed)
        training = Training(experiment.resolved(data), data, device, wrap)
        if rank():
            _seed(experiment.seed + _STRIDE * rank())  # dropout differs from rank to rank
        if experiment.compile:
            training.balancer.compile()
        training.folder, training.every = folder, every
        if folder is not None:
            training.resume(folder)
        if begin := getattr(measure, "begin", None):
            begin(training)
        while not training.finished:
            training.epoch(asked, measure, watch)
        result = training.result()
    if folder is not None:
        folder.finish(result.to_json(), result.predictions)
    return result


# ── several processes ───────────────────────────────────────────────────────────────────────────


def _launched(
    experiment: Experiment, out: Path | None, resume: bool, options: dict[str, Any]
) -> Result:
    from equivox.bench.launching import launch

    if out is None:
        raise ValueError(
            "Several processes train in a folder. Found `out = None` for "
            f"`devices = {experiment.devices}`. Pass `out`."
        )
    folder = Folder(out, experiment, resume)
    folder.checkpoint()  # completes a replacement that was cut, before all processes look
    job = partial(_train_rank, experiment, Path(out), options)
    unused = experiment.build().leaves_unused
    try:
        launch(job, options["device"], experiment.devices, unused)
    except Terminated:
        raise terminated(folder.path) from None
    return Result.read(folder.path)


def _train_rank(experiment: Experiment, out: Path, options: dict[str, Any], fabric: Any) -> None:
    """One of several processes that train together."""
    asked: list[bool] = []
    with on_termination(lambda: asked.append(True)):
        wrap = partial(fabric.setup_module, move_to_device=False)
        _trained(
            experiment,
            experiment.load(),
            Folder(out, experiment, resume=True),
            lambda: bool(asked),
            **{**options, "device": str(fabric.device)},
            wrap=wrap,
        )


# ── of a finished run ───────────────────────────────────────────────────────────────────────────


def restored(path: Path, device: str = "cpu") -> Training:
    """The training of a finished run's folder, with the weights that were selected, in eval mode.

    The random state outside is untouched. Raises FileNotFoundError for a run that is not there or
    not finished, ValueError for one that is damaged or of another version.
    """
    path = Path(path)
    experiment = read_experiment(path)
    result = Result.read(path)
    data = experiment.load()
    with preserved_random_state():
        _seed(experiment.seed)
        training = Training(experiment.resolved(data), data, device)
        kept = read_best(path, result.best["epoch"])
        try:
            training.balancer.load_state_dict(kept)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"The weights of a run should be those of its network. Found in `{path / BEST}`: "
                f"{error} Read it with the version that wrote it, see its `{CONFIG}`."
            ) from error
    training.balancer.eval()
    return training


_STRIDE = 1_000_003


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)


# ── what cannot be ──────────────────────────────────────────────────────────────────────────────


def _check(experiment: Experiment, data: MultimodalData, device: str) -> None:
    """Refuse before a folder is made what this machine, or these data, cannot do."""
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`device` should be one that torch can use here. Found `{device}`: {reason} See "
            "`equivox doctor`."
        ) from error
    if experiment.precision == "16" and found.type != "cuda":
        raise ValueError(
            f'`precision = "16"` needs a GPU. Found `device = "{device}"`. Pass '
            '`precision = "bf16"`, or "32".'
        )
    samples, rows = len(data.train), experiment.batch_size or data.recipe.batch_size
    if experiment.accumulate > 1 and samples < rows:
        raise ValueError(
            "A batch that is passed through in micro-batches should not be larger than an epoch. "
            f"Found `batch_size = {rows}` for {samples} samples. Pass a smaller one."
        )
