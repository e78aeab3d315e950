"""A training as its method sees it: the loaders, the epoch, measurements and trial runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import length_hint
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equivox.distributed import check_equal, gathered, world
from equivox.method import Batch, Method
from equivox.model import Output, evaluating
from equivox.progress import Pass
from equivox.randomness import preserved_random_state, random_state, set_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.model import Multimodal
    from equivox.task import Task

Rows = Any
"""A tensor (samples, …), or a nested mapping of such tensors."""

State = dict[str, Any]
Recall = Callable[["Run", Mapping[str, Any], Callable[[], State]], State]

_recall: ContextVar[Recall] = ContextVar("recall", default=lambda _, __, make: make())


@contextmanager
def recalling(recall: Recall) -> Iterator[None]:
    """Inside, `recall(run, key, make)` answers `Run.recalled`; it may know the state already."""
    token = _recall.set(recall)
    try:
        yield
    finally:
        _recall.reset(token)


_ask: ContextVar[Callable[[], None]] = ContextVar("ask", default=lambda: None)


@contextmanager
def asking(ask: Callable[[], None]) -> Iterator[None]:
    """Inside, trial trainings call `ask` after every update; it may raise, to end them."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


class Run:
    """What a method's `prepare`, `epoch` and `conclude` may use.

    Attributes: `loader` (of the training data), `validation` (held-out training data, or None),
    `number` (of the epoch, from 0), `shuffle` (a generator seeded by the balancer's seed and the
    epoch), `model`, `task`, `seed`.
    """

    def __init__(self, balancer: Balancer, loader: Iterable[Any]) -> None:
        self.balancer = balancer
        self.loader = loader
        self.validation = balancer.validation
        self.number = balancer.progress.epoch
        self.seed = balancer.seed
        self.shuffle = torch.Generator().manual_seed(balancer.seed * 100_003 + self.number)
        self._planned: list[Pass] = []
        self._begun = 0

    @property
    def model(self) -> Multimodal:
        """The model in training."""
        return self.balancer.model

    @property
    def task(self) -> Task:
        """What it is trained for."""
        return self.balancer.task

    @property
    def length(self) -> int | None:
        """How many batches the training loader has; None where it does not say."""
        return length_hint(self.loader) or None

    # ── what `prepare` and `conclude` measure ───────────────────────────────────────────────────

    def collect(self, loader: Iterable[Any], what: Callable[[Output, Batch], Rows]) -> Rows:
        """Rows of `what(output, batch)` over a loader, as one tensor each.

        In eval mode and without gradients; over all ranks. Where the loader yields sample numbers,
        rows are in their order, each sample once; otherwise in the order of the loader.
        """
        return self.balancer.collect(loader, what)

    def fork(self, method: Method | None = None) -> Fork:
        """An independent copy of model and optimizer to try something on; see `Fork`."""
        return Fork(self.balancer, method)

    def recalled(self, key: Mapping[str, Any], make: Callable[[], State]) -> State:
        """The state that `make` returns, or that it returned in a run that was the same so far.

        For what takes long and is the same for several methods; `key` says what it is, in plain
        values. Besides, it may depend on the model, the optimizer, the loaders and the random
        state. Without `recalling`, it is made.
        """
        return _recall.get()(self, key, make)

    def forget(self, parameters: Iterable[nn.Parameter]) -> None:
        """Drop the optimizer's state of these parameters: their momentum is zero again."""
        if self.balancer.optimizer is not None:
            for parameter in parameters:
                self.balancer.optimizer.state.pop(parameter, None)

    # ── the epoch ───────────────────────────────────────────────────────────────────────────────

    def batches(self, loader: Iterable[Any]) -> Iterator[Batch]:
        """One pass over a loader that can be resumed in its middle.

        Every loader that a method reads in `epoch` besides its `batches` should pass through here.
        """
        planned = self._planned[self._begun] if self._begun < len(self._planned) else None
        self._begun += 1
        if planned is not None:
            set_random_state(planned.start, loader)
        start = random_state(loader, devices=False)
        this = Pass(start, start)
        self.balancer.progress.passes.append(this)
        iterator = iter(loader)
        while True:
            this.fetched += 1
            if planned is not None and this.fetched == planned.fetched:
                set_random_state(planned.last, loader)
            this.last = random_state(loader, devices=False, before=this.last)
            try:
                item = next(iterator)
            except StopIteration:
                return
            yield Batch.of(item)

    def epoch(self) -> Iterator[tuple[Any, ...]]:
        """The epoch, from its beginning or from where a checkpoint left it."""
        balancer, progress = self.balancer, self.balancer.progress
        resumed = progress.forwards if progress.resuming else 0
        fresh = not progress.resuming
        self._planned = progress.begin(self.loader) if resumed or fresh else self._unused()
        self.number = progress.epoch
        self.shuffle.manual_seed(balancer.seed * 100_003 + self.number)
        _set_epoch(self.loader, self.number)
        try:
            if fresh:
                self._measure(balancer.method.prepare)
            yield from self._yielded(resumed)
            self._measure(balancer.method.conclude)
        finally:
            progress.finished = True

    def _unused(self) -> list[Pass]:
        """A checkpoint from before the epoch's first step: its passes begin anew."""
        progress = self.balancer.progress
        if progress.passes:
            progress.random = progress.passes[0].start
        progress.begin(self.loader)
        progress.replayed()
        return []

    def _yielded(self, resumed: int) -> Iterator[tuple[Any, ...]]:
        balancer = self.balancer
        balancer.clear_queue()
        batches = balancer.method.epoch(_Passes(self, self.loader), self)
        for number, batch in enumerate(batches, start=1):
            if number < resumed:
                continue
            if number == resumed:
                balancer.progress.forwards = resumed
                balancer.progress.replayed()
                continue
            balancer.plan(batch)
            yield batch.items()
        if balancer.progress.resuming:
            raise ValueError(
                "The loader should be that of the checkpoint. Found fewer batches in it than the "
                f"{resumed} steps that were made of this epoch."
            )
        balancer.check_queue()

    def _measure(self, stage: Callable[[Run], None]) -> None:
        if self.balancer.method.overrides(stage.__name__):
            with preserved_random_state(self.loader):
                stage(self)


class _Passes:
    """The training loader as a method sees it: each iteration is a pass that can be resumed."""

    def __init__(self, run: Run, loader: Iterable[Any]) -> None:
        self._run = run
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        return self._run.batches(self._loader)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]


def _set_epoch(loader: Any, number: int) -> None:
    """Tell a distributed sampler the epoch; all ranks must get equally many batches."""
    set_epoch = getattr(getattr(loader, "sampler", None), "set_epoch", None)
    if set_epoch is not None:
        set_epoch(number)
    if world() > 1:
        check_equal(length_hint(loader) or None, "batches")


class Fork:
    """An independent copy of a training: what happens to it does not touch the original.

    Model and optimizer are copied with the hyper-parameters that they have now, the optimizer's
    state starts afresh. The copy trains with another method, by default plain joint training.

    Attributes: `balancer`, the copy's own.
    """

    def __init__(self, balancer: Balancer, method: Method | None = None) -> None:
        from equivox.balancer import Balancer

        if balancer.optimizer is None:
            raise RuntimeError(
                "A fork trains with a copy of the optimizer. Found no optimizer. "
                "Call `balancer.attach(optimizer)` first."
            )
        memo: dict[int, Any] = {}
        model = copy.deepcopy(balancer.model, memo)
        optimizer = copy.deepcopy(balancer.optimizer, memo)
        with preserved_random_state():
            self.balancer = Balancer(
                model, method, task=balancer.task, seed=balancer.seed, clip=balancer.clip
            )
        _keep_only(optimizer, self.balancer)
        self.optimizer = self.balancer.attach(optimizer)

    def fit(
        self,
        loader: Iterable[Any],
        epochs: int,
        validation: Iterable[Any] | None = None,
    ) -> list[float]:
        """Train; with validation data, end with the weights of the best epoch.

        Returns the validation scores, the mean of `task.merit`, one an epoch. The random state
        outside is untouched. Over all ranks, as the real training.
        """
        best: dict[str, Any] | None = None
        scores: list[float] = []
        trained = _wrapped(self.balancer)
        with preserved_random_state(loader):
            for _ in range(epochs):
                self._train(trained, loader)
                if validation is not None:
                    scores.append(self.score(validation))
                    if scores[-1] >= max(scores):
                        best = copy.deepcopy(self.balancer.model.state_dict())
        if best is not None:
            self.balancer.model.load_state_dict(best)
        return scores

    def _train(self, trained: nn.Module, loader: Iterable[Any]) -> None:
        trained.train()
        device = next(self.balancer.parameters()).device
        for item in self.balancer.epoch(loader):
            batch = Batch.of(item).to(device)
            self.optimizer.zero_grad()
            trained(*batch.items()).backward()
            self.optimizer.step()
            _ask.get()()

    def losses(self, loader: Iterable[Any]) -> Tensor:
        """The task's loss of the prediction for every sample, in eval mode."""
        method, task = self.balancer.method, self.balancer.task
        rows: Tensor = self.balancer.collect(
            loader, lambda o, b: task.loss(method.predict(o), b.target, reduction="none")
        )
        return rows

    def score(self, loader: Iterable[Any]) -> float:
        """The mean of `task.merit` of the prediction, in eval mode."""
        method, task = self.balancer.method, self.balancer.task
        rows = self.balancer.collect(loader, lambda o, b: task.merit(method.predict(o), b.target))
        return float(rows.mean())


def _keep_only(optimizer: torch.optim.Optimizer, balancer: Balancer) -> None:
    """Leave out what is not the copy's: parameters of the original's method, and all state."""
    ours = {id(p) for p in balancer.parameters()}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) in ours]
        group.pop("balancer_group", None)
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    optimizer.state.clear()


def _wrapped(balancer: Balancer) -> nn.Module:
    if world() == 1:
        return balancer
    return nn.parallel.DistributedDataParallel(balancer, find_unused_parameters=True)


def collected(
    balancer: Balancer, loader: Iterable[Any], what: Callable[[Output, Batch], Rows]
) -> Rows:
    """See `Run.collect`."""
    device = next(balancer.parameters()).device
    parts: list[Rows] = []
    numbers: list[Tensor] = []
    with torch.no_grad(), preserved_random_state(loader), evaluating(balancer):
        for item in loader:
            batch = Batch.of(item).to(device)
            output = balancer.model(batch.inputs)
            output.features = balancer.model.completed(output.features)
            parts.append(what(output, batch))
            if batch.index is not None:
                numbers.append(batch.index)
    if not parts:
        raise ValueError("Measuring needs at least one batch. Found an empty loader.")
    if not numbers:
        return _joined(parts, None)
    return _joined(parts, _first_of_each(gathered(torch.cat(numbers))))


def _first_of_each(numbers: Tensor) -> Tensor:
    """Where each sample first occurs, in the order of the numbers; samplers may pad with copies."""
    order = numbers.argsort(stable=True)
    ordered = numbers[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def _joined(parts: Sequence[Rows], order: Tensor | None) -> Rows:
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts], order) for key in parts[0]}
    rows = gathered(torch.cat(list(parts)))
    return rows if order is None else rows[order]
