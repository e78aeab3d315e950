"""Pools of processes that trainings run in, and that are never left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

PATIENCE = 10.0
"""Seconds for a training that was asked to end, before its process is killed."""


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each to work in; none is left behind, however it ends."""
    before = set(multiprocessing.active_children())
    executor = pool(count)
    try:
        yield executor
    finally:
        end([executor], set(multiprocessing.active_children()) - before)


def pool(count: int, cores: Sequence[int] = (), threads: int = 1) -> ProcessPoolExecutor:
    """Processes that end with this one, and leave Ctrl-C to it.

    :param cores: To which they are bound where the system can do it; to none where empty.
    :param threads: Of each.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        count, mp_context=context, initializer=_start, initargs=(tuple(cores), threads)
    )


def end(pools: Iterable[ProcessPoolExecutor], processes: Iterable[BaseProcess]) -> None:
    """End pools and their processes, whatever is running in them.

    A process is asked first, so that a training can write its checkpoint, then killed.
    """
    pools, processes = list(pools), list(processes)
    for process in processes:
        process.terminate()
    for each in pools:  # a training that was asked to end leaves its process waiting for more
        each.shutdown(wait=False, cancel_futures=True)
    last = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, last - time.monotonic()))
        if process.is_alive():
            process.kill()
    for each in pools:
        each.shutdown(wait=True)


def _start(cores: Sequence[int], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
