"""G-Blend: What Makes Training Multi-modal Classification Networks Hard? (CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from equivox.arguments import choice
from equivox.errors import nearest
from equivox.method import Method
from equivox.methods.yardstick.alone import HEADS, Alone, unimodal_losses

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.run import Fork, Run
    from equivox.step import Step
    from equivox.task import Task


def raw_weights(
    before: Float[Tensor, "losses 2"],
    after: Float[Tensor, "losses 2"],
    eps: float = 1e-8,
    sign: str = "clip",
    delta: bool = True,
) -> Float[Tensor, " losses"]:
    """Gain / overfitting² of each loss, from its training and hold-out values around a probe.

    With G = L^V(before) - L^V(after) and O the change of L^V - L^T: max(G, 0) / max(O², eps), or
    |G| for `sign="abs"`. With `delta=False`: L^V / (L^V - L^T)² after the probe, where a negative
    difference counts as 1e-4.
    """
    gap = after[:, 1] - after[:, 0]
    if not delta:
        return after[:, 1] / torch.where(gap < 0, 1e-4, gap).square().clamp(min=eps)
    overfitting = gap - (before[:, 1] - before[:, 0])
    gain = before[:, 1] - after[:, 1]
    gain = gain.abs() if sign == "abs" else gain.clamp(min=0)
    return gain / overfitting.square().clamp(min=eps)


def blend(raw: Float[Tensor, " losses"], w_max: float | None = None) -> Float[Tensor, " losses"]:
    """The weights w_k = raw_k / sum raw, uniform where all are zero.

    `w_max` mixes in as much of the uniform weights as brings the largest one down to it.

    >>> blend(torch.tensor([1.2, 50.0, 3.125]))
    tensor([0.0221, 0.9204, 0.0575])
    """
    uniform = torch.full_like(raw, 1 / len(raw))
    total = raw.sum()
    weights = torch.where(total > 0, raw / total, uniform)
    if w_max is None:
        return weights
    top = weights.max()
    share = (top - w_max) / (top - uniform[0]).clamp(min=1e-12)
    return torch.lerp(weights, uniform, share.clamp(0, 1))


class GradientBlending(Method):
    """Weight unimodal and joint losses by how well their learning generalises.

    L = sum_m w_m L_m + w_J L_J, with w_k proportional to G_k / O_k²: the gain on hold-out data over
    the squared growth of overfitting in a probe, a copy that trains from the present weights on
    loss k alone with a fresh optimizer state. Offline, the probes run once before training; online,
    before every super-epoch. Prediction uses the joint logits.

    Arguments:
        mode: "offline" or "online".
        probe_epochs: of the offline probes; the paper probes for the whole schedule.
        super_epoch: epochs of a super-epoch, and of its probes; 5 on Kinetics.
        warm_up: epochs of the first super-epoch, 10 on Kinetics.
        weights: fixed weights, by modality and "joint", instead of probes; zero for what is not
            named.
        heads: "own" linear heads, or "split", the modality's share of the joint logits.
        sign: a negative gain counts as zero, "clip", or by its size, "abs".
        delta: False takes the values at the end of the probe instead of differences.
        w_max: an upper limit of the weights. Not of the paper.
        eps: the floor of O_k².

    Raises ValueError for impossible arguments and, when bound, for weights of unknown names and for
    a `w_max` that so many weights of sum one cannot keep.

    Departures: the paper is silent about negative gains; where none is positive the weights are
    uniform. The authors released no estimation, so it follows the formula of the paper.

    Source: Wang et al., CVPR 2020; weights of the released code can be given as `weights`.

    >>> GradientBlending(weights={"audio": 0.014, "visual": 0.63, "joint": 0.356})
    GradientBlending(mode='offline', ..., weights={'audio': 0.014, ...}, ...)
    """

    category = "objective"
    fidelity = "paper"
    ingredients: ClassVar[frozenset[str]] = frozenset(
        {"unimodal losses", "extra parameters", "extra epochs"}
    )
    search_space: ClassVar[Mapping[str, Any]] = {
        "mode": ("offline", "online"),
        "super_epoch": (5, 10),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"weights": {"joint": 1.0}}
    brief: ClassVar[Mapping[str, Any]] = {"mode": "online", "super_epoch": 1, "warm_up": 1}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "the probes take the loader's batches one by one"
    }
    blend_weights: Tensor
    raw: Tensor

    def __init__(
        self,
        *,
        mode: str = "offline",
        probe_epochs: int = 10,
        super_epoch: int = 5,
        warm_up: int = 10,
        weights: Mapping[str, float] | None = None,
        heads: str = "own",
        sign: str = "clip",
        delta: bool = True,
        w_max: float | None = None,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        _check(mode, sign, weights)
        _check_numbers(probe_epochs=probe_epochs, super_epoch=super_epoch, warm_up=warm_up, eps=eps)
        self.mode = mode
        self.probe_epochs = probe_epochs
        self.super_epoch = super_epoch
        self.warm_up = warm_up
        self.weights = None if weights is None else dict(weights)
        self.heads = choice("heads", heads, HEADS)  # type: ignore[misc]
        self.sign = sign
        self.delta = delta
        self.w_max = w_max
        self.eps = eps
        self.needs_validation = weights is None  # type: ignore[misc]

    def setup(self, model: Multimodal, task: Task) -> Task:
        names = (*model.modalities, "joint")
        for name in self.weights or ():
            if name not in names:
                raise ValueError(
                    f"`weights` should name modalities or the joint loss, {list(names)}. Found "
                    f"`{name}`. {nearest(name, names)}"
                )
        if self.w_max is not None and self.w_max < 1 / len(names):
            raise ValueError(
                f"`w_max` should be 1/{len(names)} or more for {len(names)} losses. Found "
                f"`w_max = {self.w_max}`."
            )
        given = self.weights or dict.fromkeys(names, 1 / len(names))
        start = torch.tensor([float(given.get(name, 0.0)) for name in names])
        self.register_buffer("blend_weights", start)
        self.register_buffer("raw", torch.zeros(len(names)))
        return task

    def prepare(self, run: Run) -> None:
        epochs = self._due(run.number)
        if self.weights is None and epochs:
            self.raw.copy_(self._estimate(run, epochs))
            self.blend_weights.copy_(blend(self.raw, self.w_max))

    def _due(self, epoch: int) -> int:
        """How long the probes before this epoch are; zero where there are none."""
        if self.mode == "offline":
            return self.probe_epochs if epoch == 0 else 0
        if epoch == 0:
            return self.warm_up
        past = epoch - self.warm_up
        return self.super_epoch if past >= 0 and past % self.super_epoch == 0 else 0

    def _estimate(self, run: Run, epochs: int) -> Tensor:
        """The raw weights of GB_Estimate: one probe after another."""
        before, after = [], []
        for modality in (*run.model.modalities, None):
            fork = run.fork(
                None if modality is None else Alone(modality=modality, heads=self.heads)
            )
            before.append(_values(fork, run))
            fork.fit(run.loader, epochs)
            after.append(_values(fork, run))
        return raw_weights(torch.stack(before), torch.stack(after), self.eps, self.sign, self.delta)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        names = (*step.model.modalities, "joint")
        weights = dict(zip(names, self.blend_weights.unbind(), strict=True))
        said = step.output.unimodal if self.heads == "own" else step.output.split
        blended = unimodal_losses(step, said) | {"joint": losses["joint"]}
        return losses | {name: weights[name] * loss for name, loss in blended.items()}


def _values(fork: Fork, run: Run) -> Float[Tensor, " 2"]:
    """The mean losses of the probe's task on the training and the hold-out data."""
    return torch.stack([fork.losses(data).mean() for data in (run.loader, run.validation or ())])


def _check(mode: str, sign: str, weights: Mapping[str, float] | None) -> None:
    if mode not in ("offline", "online"):
        raise ValueError(f'`mode` should be "offline" or "online". Found `{mode!r}`.')
    if sign not in ("clip", "abs"):
        raise ValueError(f'`sign` should be "clip" or "abs". Found `{sign!r}`.')
    if weights is not None and (min(weights.values(), default=0) < 0 or not any(weights.values())):
        raise ValueError(
            f"`weights` should be zero or more, and not all zero. Found `weights = {weights}`."
        )


def _check_numbers(**numbers: int | float) -> None:
    for name, value in numbers.items():
        if value <= 0:
            raise ValueError(f"`{name}` should be positive. Found `{name} = {value}`.")
