"""How several processes of one training start and end: Lightning Fabric's DDP on this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessException

from equivox.bench.ending import Terminated, on_termination

EXPECTED = (ValueError, TypeError, OSError, ImportError, ArithmeticError)
"""Errors that say all themselves; others come with where they arose."""

PATIENCE = 3.0
"""Seconds in which a rank that was killed is noticed, and the others ended."""

Job = Callable[[Fabric], None]


class _DDP(DDPStrategy):
    """Fabric's, without its greetings."""

    def setup_environment(self) -> None:
        for package in ("lightning.fabric", "lightning.pytorch"):
            logging.getLogger(package).setLevel(logging.WARNING)
        super().setup_environment()


def launch(job: Job, device: str, count: int, unused: bool) -> None:
    """Do a job in several processes.

    Arguments:
        job: can be pickled; is called in each process with its `Fabric`.
        device: "cpu" or "cuda".
        count: of the processes.
        unused: whether parts of the model may be without a gradient.

    SIGTERM is passed on to the processes. Where one fails all end, and its error is raised here;
    ChildProcessError for one that ended without any, Terminated where `job` raises it everywhere.
    """
    _check_devices(count, device)
    strategy = _DDP(
        start_method="spawn",
        process_group_backend="gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        find_unused_parameters=unused,
    )
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    with _environment(), _children() as asked:
        fabric = Fabric(
            accelerator=device, devices=count, strategy=strategy, plugins=[LightningEnvironment()]
        )
        try:
            fabric.launch(partial(_done, job, errors))
        except ProcessException as error:
            if asked:  # before the processes could listen
                raise Terminated from None
            if errors.empty():
                raise ChildProcessError(
                    f"The processes of a training should live until its end. Found: {error}. Go on "
                    "from its last checkpoint with `--resume`."
                ) from None
    if not errors.empty():
        raise errors.get()


def _check_devices(count: int, device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise ValueError(
            f'Several processes train on "cpu" or "cuda". Found `device = "{device}"` for '
            f"{count} of them. Pass one of these, or `devices = 1`."
        )
    if device == "cuda" and count > torch.cuda.device_count():
        raise ValueError(
            f"`devices` should not be more than there are. Found {count}, and "
            f"{torch.cuda.device_count()} here. Pass fewer, or train on the CPU."
        )


def _done(job: Job, errors: Any, fabric: Fabric) -> None:
    """Do the job; what goes wrong first is told before the other ranks miss this one."""
    try:
        job(fabric)
    except Terminated as ended:
        errors.put(ended)
    except Exception as error:
        if isinstance(error, EXPECTED):
            errors.put(error)
        else:  # perhaps only the lost connection to a rank that was killed: that one is named first
            time.sleep(PATIENCE)
            errors.put(RuntimeError(traceback.format_exc()))
        raise


@contextmanager
def _environment() -> Iterator[None]:
    """Fabric leaves the address of its processes in the environment; the next have another."""
    before = set(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before:
            del os.environ[name]


@contextmanager
def _children() -> Iterator[list[bool]]:
    """Pass SIGTERM on to the processes that begin inside, and leave none of them behind.

    What is yielded is filled where SIGTERM came.
    """
    before = multiprocessing.active_children()
    asked: list[bool] = []

    def children() -> list[Any]:
        return [child for child in multiprocessing.active_children() if child not in before]

    def pass_on() -> None:
        asked.append(True)
        for child in children():
            child.terminate()

    try:
        with on_termination(pass_on):
            yield asked
    finally:
        for child in children():
            child.kill()
