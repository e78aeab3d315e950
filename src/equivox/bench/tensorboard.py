"""TensorBoard: the scalars of every epoch of a run, beside its other files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

EVENTS = "tensorboard"


class Scalars:
    """Writes what a run's records hold as events; a `watch` of `train`.

    Arguments:
        folder: of the run. Its events of former processes are replaced, so that a run that is
            resumed holds every epoch once.

    Raises ModuleNotFoundError where TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        _check_installed()
        self.folder = folder
        self._writer: Any = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write an epoch; with the first, those before it."""
        if self._writer is None:
            for earlier in self._begin()[: record["epoch"]]:
                self._write({"lr": record["lr"], **earlier})  # it is kept where it changes alone
        self._write(record)
        self._writer.flush()

    def _begin(self) -> list[dict[str, Any]]:
        """Open a file of events; the records so far."""
        from torch.utils.tensorboard import SummaryWriter

        from equivox.bench.folder import read_metrics

        for old in (self.folder / EVENTS).glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(self.folder / EVENTS))
        return read_metrics(self.folder)

    def _write(self, record: Mapping[str, Any]) -> None:
        scalars = {"train/loss": record["loss"], "train/lr": record["lr"]}
        scalars |= {f"validation/{name}": value for name, value in record["validation"].items()}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, record["epoch"] + 1)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _check_installed() -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            "`--tensorboard` writes with TensorBoard. Found none. Run `pip install "
            '"equivox[trackers]"`.'
        ) from error
