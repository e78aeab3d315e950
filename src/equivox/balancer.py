"""The balancer: a method bound to a model, in anybody's training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from equivox.distributed import summed
from equivox.features import leaves, map_tensors
from equivox.fusion import sum_of
from equivox.groups import give_groups, give_parameters
from equivox.method import Batch, Method
from equivox.model import Multimodal, Output, evaluating
from equivox.nonfinite import Watch, non_finite_report
from equivox.perloss import LossGradients
from equivox.progress import Progress, check_state, read, written
from equivox.run import Fork, Run, collected
from equivox.step import Step, Update

if TYPE_CHECKING:
    from equivox.task import Task

_bound: WeakKeyDictionary[torch.optim.Optimizer, ReferenceType[Balancer]] = WeakKeyDictionary()
"""Which balancer acts on an optimizer; weak on both sides, for each holds the other already."""


class Balancer(nn.Module):
    """Trains a model with a method: `forward` is the loss, `attach` does the rest.

    Arguments:
        model: the network. The balancer may add heads or replace the fusion, as the method asks.
        method: how to balance; None is plain joint training.
        task: what is trained for.
        validation: a loader of held-out *training* data, for methods that measure on it.
        seed: of the method's own draws and of the modules it makes.
        clip: clip the norm of the model's gradient, after the method changed it.
        nonfinite: "raise" an error on a non-finite loss, or "skip" the update.
        scaler: the `GradScaler` of the loop, for methods with per-loss gradients under fp16.

    Raises ValueError where the method cannot work with this task, model or data.

    >>> from equivox import Classification, Concat, Joint
    >>> net = {"a": nn.Linear(3, 4), "b": nn.Linear(5, 4)}
    >>> model = Multimodal(net, Concat({"a": 4, "b": 4}, 2))
    >>> balancer = Balancer(model, Joint(), task=Classification())
    >>> optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    >>> inputs = {"a": torch.ones(6, 3), "b": torch.ones(6, 5)}
    >>> loss = balancer(inputs, torch.zeros(6, dtype=torch.long))
    >>> loss.backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        model: Multimodal,
        method: Method | None = None,
        *,
        task: Task,
        validation: Iterable[Any] | None = None,
        seed: int = 0,
        clip: float | None = None,
        nonfinite: str = "raise",
        scaler: Any = None,
    ) -> None:
        super().__init__()
        _check_kinds(model, method)
        if nonfinite not in ("raise", "skip"):
            raise ValueError(f'`nonfinite` should be "raise" or "skip". Found `{nonfinite!r}`.')
        if clip is not None and clip <= 0:
            raise ValueError(f"`clip` should be positive. Found `clip = {clip}`.")
        self.model = model
        self.method = Method() if method is None else method
        self.validation = validation
        self.seed = seed
        self.clip = clip
        self.nonfinite = nonfinite
        self.scaler = scaler
        self.task = self._setup(task)
        self.progress = Progress()
        self.optimizer: torch.optim.Optimizer | None = None
        self._handles: list[Any] = []
        self._queue: deque[Batch] = deque()
        self._pending = _Pending()
        self._loss_gradients: LossGradients | None = None
        self._watch = Watch()
        self._generators: dict[torch.device, torch.Generator] = {}
        self._keeps_evidence = self.method.overrides("gradients", "updated")
        acts = bool(clip or self.method.groups() or self.made) or nonfinite == "skip"
        self._needs_attach = self._keeps_evidence or acts

    def _setup(self, task: Task) -> Task:
        _check(self.method, task, self.validation)
        before = {id(p) for p in self.model.parameters()}
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if self.method.heads == "own":
                self.model.add_heads()
            task = self.method.setup(self.model, task)
        self.to(device)
        self.made = [p for p in self.parameters() if id(p) not in before and p.requires_grad]
        return task

    # ── a sample's way ──────────────────────────────────────────────────────────────────────────

    def forward(
        self, inputs: Mapping[str, Any], target: Any, index: Tensor | None = None
    ) -> Tensor:
        """The loss to call `backward` on; in eval mode, the task's loss of the prediction.

        Arguments: `inputs` by modality, (batch, …) each; `target`; `index`, sample numbers.
        """
        if not self.training:
            self._check_mode(inputs)
            return self.task.loss(self.method.predict(self.model(inputs)), target)
        self._begin()
        model, method = self.model, self.method
        batch = self._take(inputs, target, index)
        step = Step(model, self.task, batch, self.progress.epoch, self.generator(batch))
        features = model.encode(batch.inputs, batch.learn)
        if batch.keep is not None:
            features = model.blanked(features, batch.keep)
        step.output = output = Output(model, features)
        output.logits, output.extra = model.fused(method.features(features, step))
        return self._finish(method.losses({"joint": step.loss(output.logits)}, step), step)

    def _check_mode(self, inputs: Mapping[str, Any]) -> None:
        if self._queue and inputs is self._queue[0].inputs and torch.is_grad_enabled():
            raise RuntimeError(
                "A batch of `balancer.epoch` should be trained on. Found the balancer in eval "
                "mode. Call `balancer.train()` first, or measure under `torch.no_grad()`."
            )

    def _begin(self) -> None:
        if self._needs_attach and self.optimizer is None:
            raise RuntimeError(
                f"`{type(self.method).__name__}` acts on the optimizer's steps, or has parameters "
                "of its own to give it. Found no optimizer. Call `optimizer = "
                "balancer.attach(optimizer)` before training."
            )
        self._drop_skipped()
        if self.nonfinite == "raise" and self._pending.update is None:
            self._watch.read()

    def _take(self, inputs: Mapping[str, Any], target: Any, index: Tensor | None) -> Batch:
        """The batch that `epoch` yielded, with the tensors that the user passed."""
        if not self._queue:
            measures = self.method.overrides("prepare", "conclude")
            if self.method.overrides("epoch") or (measures and not self.progress.started):
                raise RuntimeError(
                    f"`{type(self.method).__name__}` decides what an epoch is. Found a batch that "
                    "did not come from it. Write `for inputs, target in balancer.epoch(loader):`."
                )
            self.model.check(inputs)
            return self._numbered(Batch(inputs, target, index))
        planned = self._queue.popleft()
        self.progress.forwards += 1
        if (
            inputs is planned.inputs
            and target is planned.target
            and (index is None or index is planned.index)
        ):
            return self._numbered(planned)  # just as it was yielded
        self._check_same(inputs, planned.inputs)
        device = leaves(inputs)[0].device
        own = planned.index if index is None else index
        given = planned.with_(inputs=inputs, target=target, index=own)
        return self._numbered(given.to(device))

    def _numbered(self, batch: Batch) -> Batch:
        if self.method.needs_index and batch.index is None:
            raise ValueError(
                f"`{type(self.method).__name__}` remembers samples by their numbers. Found none in "
                "the batch. Let the loader yield `(inputs, target, index)`, and pass them all on."
            )
        return batch

    def _check_same(self, inputs: Mapping[str, Any], planned: Mapping[str, Any]) -> None:
        self.model.check(inputs, [name for name in planned if name != "present"])
        found, rows = (leaves(part)[0].shape[0] for part in (inputs, planned))
        if found != rows:
            raise ValueError(
                "Training forwards should take the batches in the order `epoch` yields them. Found "
                f"{found} samples where {rows} were yielded. Pass every batch, once."
            )

    def _finish(self, losses: dict[str, Tensor], step: Step) -> Tensor:
        """The total loss; counts the step and keeps its evidence."""
        if self.method.per_loss_gradients:
            total = self._gradients_of().total(losses)
        else:
            total = sum_of(losses.values())
        self._look(total, step)
        if self._keeps_evidence and total.requires_grad:
            if self._pending.update is None:
                self._pending.update = self._new_update(step)
            self._pending.update.add(step.evidence)
            total.register_hook(self._pending.mark)
        return total

    def _look(self, total: Tensor, step: Step) -> None:
        features = {m: map_tensors(Tensor.detach, z) for m, z in step.output.features.items()}
        report = partial(non_finite_report, features, step, max(self.progress.forwards - 1, 0))
        if self.nonfinite == "raise":
            self._watch.set(total, report)
        else:
            flag = summed([(~total.detach().isfinite()).float()])[0]
            self._pending.skipping = self._pending.skipping or bool(flag)

    def generator(self, batch: Batch | None = None) -> torch.Generator:
        """The method's own generator on the device of the data; equal on every rank."""
        where = leaves(batch.inputs) if batch is not None else list(self.parameters())
        device = where[0].device
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
            self.progress.restore(self._generators[device])
        return self._generators[device]

    # ── the optimizer ───────────────────────────────────────────────────────────────────────────

    def attach(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Act on this optimizer's steps from now on, and give it the method's own parameters.

        Raises ValueError where an encoder is not in the optimizer, or another balancer acts on it.
        """
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                "What is attached is an optimizer of `balancer.parameters()`. Found "
                f"`{type(optimizer).__name__}`."
            )
        other = _bound[optimizer]() if optimizer in _bound else None
        if other not in (None, self):
            raise ValueError(
                "One balancer should act on an optimizer. Found another one attached. "
                "Call its `detach()` first."
            )
        self.detach()
        give_parameters(self, optimizer)
        give_groups(self.method.groups(), optimizer)
        self.optimizer = optimizer
        _bound[optimizer] = ref(self)
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        return optimizer

    def detach(self) -> None:
        """Stop acting on the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self.optimizer is not None:
            _bound.pop(self.optimizer, None)
        self.optimizer = None
        self._drop()

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._modulate(optimizer)
            return None

        def modulated() -> Any:  # the closure's backward comes after this hook
            with torch.enable_grad():
                loss = closure()
            self._modulate(optimizer)
            return loss

        return (args[0], modulated), {k: v for k, v in kwargs.items() if k != "closure"}

    def _modulate(self, optimizer: torch.optim.Optimizer) -> None:
        found_inf = _unscale(optimizer)
        pending = self._pending
        if pending.skipping:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
            self._drop()
        # Reading `found_inf` waits for the device, as GradScaler's own unfused step does.
        if found_inf is not None and bool(found_inf):
            self._drop()
            return
        if pending.update is not None:
            with torch.no_grad():
                if self._loss_gradients is not None:
                    pending.update.per_loss = self._loss_gradients.finish()
                self.method.gradients(pending.update)
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        _fill_momentum(optimizer)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._pending.update is not None:
            with torch.no_grad():
                self.method.updated(self._pending.update)
        self.progress.updates += 1
        self._drop()

    def _drop(self) -> None:
        self._pending.clear()
        if self._loss_gradients is not None:
            self._loss_gradients.drop()

    def _drop_skipped(self) -> None:
        """Forget an update that a GradScaler skipped: its gradients are gone."""
        if self._pending.went_back and all(p.grad is None for p in self.parameters()):
            self._drop()

    def _new_update(self, step: Step) -> Update:
        generator = self.generator(step.batch)
        return Update(self.model, self.owned(), step.epoch, self.progress.updates, generator)

    def _gradients_of(self) -> LossGradients:
        if self._loss_gradients is None:
            parameters = list(self.parameters())
            self._loss_gradients = LossGradients(parameters, self.owned(), self.scaler)
        return self._loss_gradients

    def owned(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each encoder, and under "shared" those of several."""
        if not hasattr(self, "_owned"):
            self._owned = {m: self.model.encoder_parameters(m) for m in self.model.modalities}
            self._owned["shared"] = self.model.shared_parameters()
        return self._owned

    # ── epochs, prediction, copies ──────────────────────────────────────────────────────────────

    def epoch(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of one epoch, as the method wants them: the loader's own tuples.

        After `load_state_dict` in the middle of an epoch it goes on where that epoch was.
        """
        yield from Run(self, loader).epoch()

    def plan(self, batch: Batch) -> None:
        """Expect this batch in a coming training forward."""
        self._queue.append(batch)

    def clear_queue(self) -> None:
        """Expect no batch of an epoch that was left."""
        self._queue.clear()

    def check_queue(self) -> None:
        """Refuse to end an epoch of which batches were left out."""
        if self._queue:
            raise RuntimeError(
                "Every batch of the epoch should pass through the balancer, once. Found "
                f"{len(self._queue)} that did not. Leave a batch out in the loader instead."
            )

    @torch.no_grad()
    def predict(self, inputs: Mapping[str, Any]) -> Tensor:
        """The method's own prediction: logits, in eval mode and without a graph."""
        with evaluating(self):
            return self.method.predict(self.model(inputs))

    def collect(self, loader: Iterable[Any], what: Callable[[Output, Batch], Any]) -> Any:
        """Rows of `what(output, batch)` over a loader, in eval mode; see `Run.collect`."""
        return collected(self, loader, what)

    def fork(self, method: Method | None = None) -> Fork:
        """An independent copy for trials and teachers; see `Fork`."""
        return Fork(self, method)

    def compile(self, **options: Any) -> None:
        """Compile the encoders, the fusion and the heads, in place.

        Not the balancer: the passes of per-loss methods go through the graph more than once.
        """
        heads = [] if self.model.heads is None else list(self.model.heads.values())
        for module in (*self.model.encoders.values(), self.model.fusion, *heads):
            module.compile(**options)

    # ── state ───────────────────────────────────────────────────────────────────────────────────

    def get_extra_state(self) -> Tensor:
        """Counters and random states, as bytes of JSON in a tensor. Reads a pending error first."""
        if self.nonfinite == "raise":
            self._watch.read(wait=True)
        self._drop_skipped()
        if self._pending.update is not None and self._pending.went_back:
            raise RuntimeError(
                "A state should be saved after an update. Found gradients that no optimizer "
                "step has used. Save after `optimizer.step()`."
            )
        kinds = {"method": type(self.method).__name__, "modalities": list(self.model.modalities)}
        return written(kinds | self.progress.to_json(self._generators))

    def set_extra_state(self, state: Tensor) -> None:
        self.progress = Progress.from_json(read(state))
        self._generators.clear()
        self.clear_queue()
        self._drop()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        check_state(state_dict.get(prefix + "_extra_state"), self)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _Pending:
    """What the steps since the last optimizer step left for the next one."""

    def __init__(self) -> None:
        self.update: Update | None = None
        self.went_back = self.skipping = False

    def mark(self, gradient: Tensor) -> None:
        """A backward pass went through one of the losses."""
        self.went_back = True

    def clear(self) -> None:
        """The optimizer has stepped, or never will with these."""
        self.update = None
        self.went_back = self.skipping = False


def _check_kinds(model: Any, method: Any) -> None:
    if not isinstance(model, Multimodal):
        raise TypeError(
            f"A balancer trains a `Multimodal`. Found `{type(model).__name__}`. Adopt a network by "
            "`Multimodal.from_model`; wrap the balancer, not the model, for several devices, and "
            "compile by `balancer.compile()`."
        )
    if method is not None and not isinstance(method, Method):
        raise TypeError(
            f"`method` should be a method, such as `OGMGE()`. Found `{method!r}`. Methods by name "
            'are `equivox.methods.get("ogm_ge")()`.'
        )


def _check(method: Method, task: Task, validation: Any) -> None:
    kinds = {kind.__name__ for kind in type(task).__mro__}
    if not kinds & set(method.tasks):
        raise ValueError(
            f"`{type(method).__name__}` is defined for {', '.join(method.tasks)}. Found "
            f"`{type(task).__name__}`."
        )
    if method.needs_validation and validation is None:
        raise ValueError(
            f"`{type(method).__name__}` measures on held-out data. Found no validation loader. "
            "Pass `Balancer(..., validation=loader)` with a part of the training data."
        )


def _unscale(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Undo the scale of gradients that a GradScaler hands to a fused optimizer."""
    scale = getattr(optimizer, "grad_scale", None)
    found: Tensor | None = getattr(optimizer, "found_inf", None)
    if scale is not None:
        gradients = [
            p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None
        ]
        torch._foreach_mul_(gradients, 1.0 / scale)
        optimizer.grad_scale = None  # type: ignore[attr-defined]
    return found


def _fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Start the momentum of who learns for the first time: fused SGD wants all buffers or none."""
    for group in optimizer.param_groups:
        if group.get("fused") and group.get("momentum") and not group.get("dampening"):
            for p in group["params"]:
                if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
