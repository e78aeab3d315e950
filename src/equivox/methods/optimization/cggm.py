"""CGGM: Classifier-guided Gradient Modulation for Enhanced Multimodal Learning (NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.distributed import averaged_
from equivox.features import map_values, project
from equivox.functional import flat_dot, flat_norm
from equivox.fusion import Sum, sum_of
from equivox.method import Method

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.step import Step, Update
    from equivox.task import Task


def balance_terms(gains: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """B_m = (S - Delta_m) / S with S = sum_m Delta_m + 1e-8, in float64; 1 for a single modality.

    B is negative where one modality gains more than all together, and about 1e8 Delta_m in size
    where the gains cancel exactly.

    >>> balance_terms({"audio": torch.tensor(0.125), "video": torch.tensor(0.375)})
    {'audio': tensor(0.7500, dtype=torch.float64), 'video': tensor(0.2500, dtype=torch.float64)}
    """
    wide = {m: gain.double() for m, gain in gains.items()}
    total = sum_of(wide.values()) + 1e-8
    if len(wide) == 1:
        return {m: torch.ones_like(gain) for m, gain in wide.items()}
    return {m: (total - gain) / total for m, gain in wide.items()}


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The cosine of two lists of tensors, each as one long vector; 0 where one of them is zero."""
    return flat_dot(a, b) / (flat_norm(a) * flat_norm(b)).clamp(min=1e-12)


def direction_loss(
    balance: Mapping[str, Float[Tensor, ""]], cosines: Mapping[str, Float[Tensor, ""]]
) -> Float[Tensor, ""]:
    """L_gm = (sum_m |B_m| - sum_m B_m c_m) / M: zero where every c_m is one and no B_m negative.

    >>> B = balance_terms({"audio": torch.tensor(0.125), "video": torch.tensor(0.375)})
    >>> direction_loss(B, {"audio": torch.tensor(1.0), "video": torch.tensor(0.0)})
    tensor(0.1250, dtype=torch.float64)
    """
    return sum_of(b.abs() - b * cosines[m] for m, b in balance.items()) / len(balance)


def last_layers(fusion: nn.Module, outputs: int | None) -> list[nn.Linear]:
    """The layers whose outputs are summed to the logits: the fusion's last one, or those of `Sum`.

    Empty where the fusion has no linear layer that writes as many outputs.
    """
    if isinstance(fusion, Sum):
        return [layer for layer in fusion.linears.values() if isinstance(layer, nn.Linear)]
    if isinstance(declared := getattr(fusion, "linear", None), nn.Linear):
        return [declared]
    found = [layer for layer in fusion.modules() if isinstance(layer, nn.Linear)]
    return [layer for layer in found if layer.out_features == outputs][-1:]


class CGGM(Method):
    """Scale encoders by how little their own classifiers gain, and turn the last layer to these.

    A classifier per modality learns from the detached feature. With Delta_m the change of its
    accuracy since the last update, S = sum_m Delta_m + 1e-8 and B_m = (S - Delta_m) / S, the
    gradient of encoder m is multiplied by rho B_m. The loss of the next update gains
    lam (sum_m |B_m| - sum_m B_m c_m) / M, with c_m the cosine of the classifier's last weight W_m
    and the fusion's last weight W_F; it reaches W_F alone.

    Arguments:
        rho: scale of the encoders' gradients; 1.3 in the paper (BraTS: 1.0).
        lam: weight of the direction term; 0.2 for MOSI and IEMOCAP, 0.05 Food101, 0.1 BraTS.
        direction: "weights", as the released code; "gradients", the paper: c_m of the gradients of
            W_m and W_F, in the loss of the same update, by a double backward limited to the last
            layer; or "none".
        clip: norm of the model's gradient after modulation; 0.8 in the paper (BraTS: None).
        lr_scale: the classifiers' learning rate over the model's; 5e-4 / 1e-3 in the paper.
        ema: share of the old accuracy in the new one; 0 in the paper.
        b_clip: bound of |B_m|; None in the paper. Batch accuracies cancel exactly in about one of
            twenty updates: then |B| is about 1e7, and what `clip` leaves is that part alone.

    Departures: the classifiers are a hidden layer and a linear one of W_F's shape on the pooled
    feature (the authors': two transformer layers before). The metric is `task.correct`: accuracy,
    F1, or exp(-squared error). A modality alone is not scaled. `balance` keeps the last B_m.

    Raises ValueError for a fusion that does not end in a linear layer, unless `direction="none"`.

    Source: Guo et al., NeurIPS 2024, arXiv 2411.01409, and the released code.

    >>> CGGM(lam=0.05)
    CGGM(rho=1.3, lam=0.05, direction='weights', clip=0.8, lr_scale=0.5, ema=0.0, b_clip=None)
    """

    category = "optimization"
    ingredients = frozenset({"extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {"rho": (1.3, 1.0), "lam": (0.2, 0.05, 0.1)}

    def __init__(
        self,
        *,
        rho: float = 1.3,
        lam: float = 0.2,
        direction: str = "weights",
        clip: float | None = 0.8,
        lr_scale: float = 0.5,
        ema: float = 0.0,
        b_clip: float | None = None,
    ) -> None:
        super().__init__()
        _check(rho, lam, direction, {"clip": clip, "b_clip": b_clip, "lr_scale": lr_scale}, ema)
        self.rho = rho
        self.lam = lam
        self.direction = direction
        self.clip = clip
        self.lr_scale = lr_scale
        self.ema = ema
        self.b_clip = b_clip

    def setup(self, model: Multimodal, task: Task) -> Task:
        model.require("widths", "outputs")
        layers = last_layers(model.fusion, model.outputs)
        if not layers and self.direction != "none":
            raise ValueError(
                "The direction of `CGGM` is that of the fusion's last linear layer. Found none in "
                f'`{type(model.fusion).__name__}`. Pass `CGGM(direction="none")`.'
            )
        hidden = sum(layer.in_features for layer in layers) or max(model.widths.values())
        self.classifiers = nn.ModuleDict(
            {m: _classifier(w, hidden, model.outputs or 1) for m, w in model.widths.items()}
        )
        self.previous = _constants(model.modalities, 0.0)
        self.balance = _constants(model.modalities, 1.0)
        pulls = [torch.zeros_like(layer.weight.detach()) for layer in layers]
        self.pulls = nn.ParameterList([nn.Parameter(x, requires_grad=False) for x in pulls])
        return task

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.classifiers.parameters()), "lr_scale": self.lr_scale}]

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        pool = getattr(step.model.fusion, "pool", True)
        detached = {m: map_values(Tensor.detach, z) for m, z in step.output.features.items()}
        said = {m: project(self.classifiers[m], z, pool) for m, z in detached.items()}
        with torch.no_grad():
            rows = {m: step.task.correct(logits, step.target) for m, logits in said.items()}
        step.note("cggm", rows)
        auxiliary = {f"classifier of {m}": step.loss(logits) for m, logits in said.items()}
        if self.direction == "gradients":
            self._note_slopes(
                losses["joint"], dict(zip(said, auxiliary.values(), strict=True)), step
            )
        return losses | auxiliary

    def gradients(self, update: Update) -> None:
        balance = self._balance(update.mean("cggm"))
        if self.direction == "weights":
            self._pull(update.model, balance)
        if self.direction == "gradients":
            self._turn(update, balance)
        for m, b in balance.items():
            torch._foreach_mul_(update.gradient(m), (self.rho * b).float())
        if self.clip is not None:
            nn.utils.clip_grad_norm_(update.model.parameters(), self.clip)

    def _balance(self, accuracies: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """B_m of the update; keeps it, and the accuracies for the next one."""
        gains = {}
        for m, accuracy in accuracies.items():
            now = self.ema * self.previous[m] + (1 - self.ema) * accuracy.double()
            gains[m] = now - self.previous[m]
            self.previous[m].copy_(now)
        balance = balance_terms(gains)
        if self.b_clip is not None:
            balance = {m: b.clamp(-self.b_clip, self.b_clip) for m, b in balance.items()}
        for m, b in balance.items():
            self.balance[m].copy_(b)
        return balance

    def _pull(self, model: Multimodal, balance: Mapping[str, Tensor]) -> None:
        """Add the last update's direction term to W_F's gradient, and find this one's."""
        layers = last_layers(model.fusion, model.outputs)
        for layer, pull in zip(layers, self.pulls, strict=True):
            if layer.weight.grad is not None:
                layer.weight.grad += pull
        weights = [layer.weight.detach().requires_grad_() for layer in layers]
        with torch.enable_grad():
            cosines = {
                m: cosine([self._last(m).detach()], [torch.cat(weights, 1)]) for m in balance
            }
            gradients = torch.autograd.grad(self.lam * direction_loss(balance, cosines), weights)
        torch._foreach_copy_(list(self.pulls), list(gradients))

    def _note_slopes(self, joint: Tensor, auxiliary: Mapping[str, Tensor], step: Step) -> None:
        """Note d c_m / d (W_F, b) of every modality as one long vector."""
        layers = last_layers(step.model.fusion, step.model.outputs)
        weights = [layer.weight for layer in layers]
        learning = [p for layer in layers for p in layer.parameters()]
        ours = torch.cat(torch.autograd.grad(joint, weights, create_graph=True), 1)
        slopes = {}
        for m, loss in auxiliary.items():
            (theirs,) = torch.autograd.grad(loss, [self._last(m)], retain_graph=True)
            c = cosine([theirs], [ours])
            found = torch.autograd.grad(
                c, learning, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            slopes[m] = torch.cat([g.flatten() for g in found])
        step.note("cggm slopes", slopes)

    def _turn(self, update: Update, balance: Mapping[str, Tensor]) -> None:
        """Add this update's direction term to the gradient of the last layer."""
        slopes = {m: torch.stack(rows).mean(0) for m, rows in update.rows("cggm slopes").items()}
        averaged_(list(slopes.values()))
        factor = -self.lam / len(balance)
        turn = factor * sum_of(b.float() * slopes[m] for m, b in balance.items())
        layers = last_layers(update.model.fusion, update.model.outputs)
        parameters = [p for layer in layers for p in layer.parameters()]
        parts = turn.split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            if parameter.grad is not None:
                parameter.grad += part.view_as(parameter)

    def _last(self, modality: str) -> Tensor:
        """W_m, the last weight of a modality's classifier."""
        return next(p for p in self.classifiers[modality][-1].parameters())  # type: ignore[index]


def _check(
    rho: float, lam: float, direction: str, positive: Mapping[str, float | None], ema: float
) -> None:
    if rho <= 0 or lam < 0:
        raise ValueError(
            "`rho` should be positive and `lam` zero or more. Found "
            f"`rho = {rho}` and `lam = {lam}`."
        )
    if direction not in ("weights", "gradients", "none"):
        raise ValueError(
            f'`direction` should be "weights", "gradients" or "none". Found `{direction!r}`.'
        )
    for name, value in positive.items():
        if value is not None and value <= 0:
            raise ValueError(f"`{name}` should be positive. Found `{name} = {value}`.")
    if not 0 <= ema < 1:
        raise ValueError(f"`ema` should lie in [0, 1). Found `ema = {ema}`.")


def _classifier(width: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _constants(modalities: Sequence[str], value: float) -> nn.ParameterDict:
    number = torch.tensor(value, dtype=torch.float64)
    return nn.ParameterDict(
        {m: nn.Parameter(number.clone(), requires_grad=False) for m in modalities}
    )
