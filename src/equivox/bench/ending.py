"""How a run is asked to end, and how it says that it did."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Terminated(Exception):
    """The process was asked to end (SIGTERM), and a checkpoint was written."""


def terminated(folder: Path) -> Terminated:
    """What a run raises that has kept its state in this folder."""
    return Terminated(
        f"The run was asked to end, and its state is kept. Go on with `--resume {folder}`."
    )


@contextmanager
def on_termination(act: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGTERM acts, instead of ending the process; not in a thread, which gets none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
