"""A method: one published way of balancing, written as the stages of training that it changes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from equivox.features import map_tensors

if TYPE_CHECKING:
    from equivox.features import Features
    from equivox.model import Multimodal, Output
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task


@dataclass(frozen=True)
class Batch:
    """A batch, and what a method's `epoch` wants done with it.

    `keep` is a (batch, modalities) mask of what is not blanked; only the encoders in `learn` learn,
    the others serve (all learn where it is None); `extra` is the method's own.
    """

    inputs: Mapping[str, Any]
    target: Any
    index: Tensor | None = None
    keep: Tensor | None = None
    learn: Set[str] | None = None
    extra: Any = None

    @staticmethod
    def of(item: Any) -> Batch:
        """The batch in what a loader yields: `(inputs, target)` or `(inputs, target, index)`."""
        if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
            raise TypeError(
                "A loader should yield `(inputs, target)` or `(inputs, target, index)`. Found "
                f"`{type(item).__name__}`. Give it a `collate_fn`."
            )
        if not isinstance(item[0], Mapping):
            raise TypeError(
                f"`inputs` should be a dictionary by modality. Found `{type(item[0]).__name__}`."
            )
        return Batch(*item)

    def only(self, *modalities: str) -> Batch:
        """The same samples with these modalities alone: the others' encoders do not run."""
        kept = {m: x for m, x in self.inputs.items() if m in modalities or m == "present"}
        return replace(self, inputs=kept)

    def with_(self, **changes: Any) -> Batch:
        """The same batch with some fields changed."""
        return replace(self, **changes)

    def items(self) -> tuple[Any, ...]:
        """What the user sees of it: the loader's own tuple."""
        pair = (self.inputs, self.target)
        return pair if self.index is None else (*pair, self.index)

    def to(self, device: Any) -> Batch:
        """The batch on another device."""

        def moved(part: Any) -> Any:
            return map_tensors(lambda x: x.to(device, non_blocking=True), part)

        return Batch(
            moved(self.inputs),
            moved(self.target),
            moved(self.index),
            moved(self.keep),
            self.learn,
            moved(self.extra),
        )


class Method(nn.Module):
    """The base of every method: plain joint training.

    A method overrides the stages it changes; a stage receives what it may change and returns it.
    State that must survive a checkpoint is a buffer, parameter or submodule made in `setup`;
    Python attributes hold hyper-parameters only, which are keyword arguments of the constructor.
    """

    category: str
    """data, feed-forward, objective, optimization, target, or yardstick."""
    heads: str = "any"
    """"own": every modality needs a head of its own; "split" or "any": its share will do."""
    tasks: tuple[str, ...] = ("Classification", "MultiLabel", "Regression", "Dense")
    """The tasks it is defined for."""
    per_loss_gradients: bool = False
    needs_validation: bool = False
    needs_index: bool = False
    resamples: bool = False
    leaves_unused: bool = False
    replaces_fusion: bool = False
    drops_joint: bool = False
    """It trains, at times, without the joint loss: in a chain its losses come last."""
    ingredients: frozenset[str] = frozenset()
    """What it uses besides its mechanism: unimodal losses, unimodal initialisation, an inference
    rule, extra parameters, extra epochs."""
    fidelity: str = "ours"
    """official (the released code was described), paper, reconstruction, or ours."""
    search_space: ClassVar[Mapping[str, Any]] = {}
    """Values worth trying, by hyper-parameter: those of the paper first."""
    neutral: ClassVar[Mapping[str, Any] | None] = None
    """Arguments under which it is joint training bit for bit; None where it never is."""
    brief: ClassVar[Mapping[str, Any]] = {}
    """Arguments under which two short epochs show all of it; the conformance suite uses them."""
    idle: frozenset[str] = frozenset()
    """Parts that never learn under it: "fusion", "encoders" or "heads"."""
    exceptions: ClassVar[Mapping[str, str]] = {}
    """Checks of the conformance suite that do not apply, with the reason."""

    @classmethod
    def space(cls, modalities: Sequence[str]) -> Mapping[str, Any]:  # noqa: ARG003
        """The values worth trying: `search_space`, unless they depend on the modalities."""
        return cls.search_space

    def setup(self, model: Multimodal, task: Task) -> Task:
        """Make what the method needs, once, when bound; may replace the fusion or the task."""
        return task

    def prepare(self, run: Run) -> None:
        """Before every epoch, once: measure and decide. What it decides is state."""

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        """The batches of an epoch and who learns from them. Never runs the model."""
        yield from batches

    def conclude(self, run: Run) -> None:
        """After every epoch, once: fit what prediction needs, on the validation data."""

    def features(self, features: Features, step: Step) -> Features:
        """Between the encoders and the fusion, in training only."""
        return features

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses that are summed; one named after a modality reaches that encoder alone."""
        return losses

    def gradients(self, update: Update) -> None:
        """Before the optimizer moves: gradients are complete, unscaled and synchronised."""

    def updated(self, update: Update) -> None:
        """After the optimizer moved."""

    def predict(self, output: Output) -> Tensor:
        """The logits at inference."""
        return output.logits

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of its own: the optimizer's keys, or `lr_scale` times its rate."""
        return []

    def overrides(self, *stages: str) -> bool:
        """Whether the method changes any of these stages."""
        return any(getattr(type(self), stage) is not getattr(Method, stage) for stage in stages)

    def __add__(self, other: Method) -> Chain:
        if not isinstance(other, Method):
            return NotImplemented
        return Chain(*_links(self), *_links(other))

    def __repr__(self) -> str:
        signature = inspect.signature(type(self).__init__).parameters.values()
        names = [p.name for p in signature if p.kind is p.KEYWORD_ONLY]
        values = {name: getattr(self, name) for name in names}
        arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"{type(self).__name__}({arguments})"

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.children():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()  # a frozen teacher or snapshot
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Buffers may have grown since `setup`: they take the saved shape."""
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and isinstance(saved, Tensor) and saved.shape != buffer.shape:
                self._buffers[name] = saved.to(buffer.device, copy=True)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _links(method: Method) -> list[Method]:
    return list(method.methods) if isinstance(method, Chain) else [method]  # type: ignore[arg-type]


class Chain(Method):
    """Several methods at once: epochs nest, the first outermost; other stages run left to right.

    But for four: who resamples has the innermost epoch, who replaces the fusion is set up first,
    who drops the joint loss changes the losses last, and who makes gradients of each loss changes
    the gradients first.

    Raises ValueError for methods that cannot act together, with the reason.
    """

    category = "chain"

    def __init__(self, *methods: Method) -> None:
        super().__init__()
        _check_chain(methods)
        self.methods = nn.ModuleList(methods)
        self.heads = "own" if any(m.heads == "own" for m in methods) else "any"
        self.tasks = tuple(t for t in Method.tasks if all(t in m.tasks for m in methods))
        self.idle = frozenset().union(*(m.idle for m in methods))
        for flag in _FLAGS:
            setattr(self, flag, any(getattr(m, flag) for m in methods))

    def overrides(self, *stages: str) -> bool:
        return any(m.overrides(*stages) for m in self._parts())

    def _parts(self) -> list[Method]:
        return list(self.methods)  # type: ignore[arg-type]

    def setup(self, model: Multimodal, task: Task) -> Task:
        # The fusion comes first: others make what fits it.
        for method in sorted(self._parts(), key=lambda m: not m.replaces_fusion):
            task = method.setup(model, task)
        return task

    def prepare(self, run: Run) -> None:
        for method in self._parts():
            method.prepare(run)

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        # Who draws its own samples is innermost: it has no use for the batches of another.
        inwards = sorted(self._parts(), key=lambda m: m.resamples)
        for method in inwards[::-1]:
            batches = method.epoch(batches, run)
        yield from batches

    def conclude(self, run: Run) -> None:
        for method in self._parts():
            method.conclude(run)

    def features(self, features: Features, step: Step) -> Features:
        for step.link, method in enumerate(self._parts()):
            features = method.features(features, step)
        return features

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        for step.link, method in sorted(enumerate(self._parts()), key=lambda x: x[1].drops_joint):
            losses = method.losses(losses, step)
        return losses

    def gradients(self, update: Update) -> None:
        # Who makes gradients of the losses' own comes first: it replaces what there is.
        links = sorted(enumerate(self._parts()), key=lambda x: not x[1].per_loss_gradients)
        for update.link, method in links:
            method.gradients(update)

    def updated(self, update: Update) -> None:
        for update.link, method in enumerate(self._parts()):
            method.updated(update)

    def predict(self, output: Output) -> Tensor:
        for method in self._parts():
            if method.overrides("predict"):
                return method.predict(output)
        return output.logits

    def groups(self) -> list[dict[str, Any]]:
        return [group for method in self._parts() for group in method.groups()]

    def __repr__(self) -> str:
        return " + ".join(repr(method) for method in self._parts())


_FLAGS = (
    "per_loss_gradients",
    "needs_validation",
    "needs_index",
    "resamples",
    "leaves_unused",
    "replaces_fusion",
    "drops_joint",
)


def _check_chain(methods: tuple[Method, ...]) -> None:
    names = [type(method).__name__ for method in methods]
    if len(set(names)) < len(names):
        raise ValueError(f"A chain should hold a method once. Found {names}.")
    rules = {
        "resample the data": [m for m in methods if m.resamples],
        "replace the fusion": [m for m in methods if m.replaces_fusion],
        "train without the joint loss": [m for m in methods if m.drops_joint],
        "own the per-loss gradients": [m for m in methods if m.per_loss_gradients],
        "have their own prediction": [m for m in methods if m.overrides("predict")],
    }
    for what, members in rules.items():
        if len(members) > 1:
            raise ValueError(
                f"Only one method of a chain can {what.replace('their', 'its')}. Found "
                f"{' and '.join(type(m).__name__ for m in members)}."
            )
