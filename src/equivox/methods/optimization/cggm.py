"""CGGM: Classifier-guided Gradient Modulation for Enhanced Multimodal Learning (NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.arguments import choice, number
from equivox.distributed import averaged_
from equivox.functional.alignment import alignment_pull, cosine_slopes
from equivox.functional.discrepancy import share_of_others
from equivox.functional.gradients import add_to_gradients_
from equivox.fusion import sum_of
from equivox.method import Method
from equivox.modules.classifiers import DetachedClassifiers, last_layers
from equivox.modules.constants import constants
from equivox.step import global_means

if TYPE_CHECKING:
    from equivox.model import Multimodal
    from equivox.step import Step, Update
    from equivox.task import Task


class CGGM(Method):
    """Scale encoders by how little their own classifiers gain, and turn the last layer to these.

    A classifier per modality learns from the detached feature. With Delta_m the change of its
    accuracy since the last update, S = sum_m Delta_m + 1e-8 and B_m = (S - Delta_m) / S, the
    gradient of encoder m is multiplied by rho B_m. The loss of the next update gains
    lam (sum_m |B_m| - sum_m B_m c_m) / M, with c_m the cosine of the classifier's last weight W_m
    and the fusion's last weight W_F; it reaches W_F alone. `balance` keeps the last B_m.

    Arguments:
        rho: scale of the encoders' gradients; 1.3 in the paper (BraTS: 1.0).
        lam: weight of the direction term; 0.2 for MOSI and IEMOCAP, 0.05 Food101, 0.1 BraTS.
        direction: "weights", as the released code; "gradients", the paper: c_m of the gradients of
            W_m and W_F, in the loss of the same update; or "none".
        clip: norm of the model's gradient after modulation; 0.8 in the paper (BraTS: None).
        lr_scale: the classifiers' learning rate over the model's; 5e-4 / 1e-3 in the paper.
        ema: share of the old accuracy in the new one; 0 in the paper.
        b_clip: bound of |B_m|; None in the paper, where accuracies that cancel make it about 1e7.

    Departures: the classifiers are `DetachedClassifiers`, with a last layer of W_F's shape. The
    metric is `task.correct`: accuracy, F1, or exp(-squared error). B of a modality alone is 1.

    Raises ValueError for a fusion that does not end in a linear layer, unless `direction="none"`.

    Source: Guo et al., NeurIPS 2024, arXiv 2411.01409, and the released code.

    >>> CGGM(lam=0.05)
    CGGM(rho=1.3, lam=0.05, direction='weights', clip=0.8, lr_scale=0.5, ema=0.0, b_clip=None)
    """

    category = "optimization"
    fidelity = "official"
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
        self.rho = number("rho", rho, above=0)
        self.lam = number("lam", lam, least=0)
        self.direction = choice("direction", direction, ("weights", "gradients", "none"))
        self.clip = number("clip", clip, above=0)
        self.lr_scale = number("lr_scale", lr_scale, above=0)
        self.ema = number("ema", ema, least=0, below=1)
        self.b_clip = number("b_clip", b_clip, above=0)

    def setup(self, model: Multimodal, task: Task) -> Task:
        widths, outputs = model.sizes()
        layers = last_layers(model.fusion, model.outputs)
        if not layers and self.direction != "none":
            raise ValueError(
                "The direction of `CGGM` is that of the fusion's last linear layer. Found none in "
                f'`{type(model.fusion).__name__}`. Pass `CGGM(direction="none")`.'
            )
        hidden = sum(layer.in_features for layer in layers) or max(widths.values())
        self.classifiers = DetachedClassifiers(widths, hidden, outputs)
        one = torch.ones((), dtype=torch.float64)
        self.previous = constants(dict.fromkeys(model.modalities, 0 * one))
        self.balance = constants(dict.fromkeys(model.modalities, one))
        self.pulls = constants([torch.zeros_like(layer.weight) for layer in layers])
        return task

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.classifiers.parameters()), "lr_scale": self.lr_scale}]

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        said = self.classifiers.say(step.output.features, getattr(step.model.fusion, "pool", True))
        step.note("correct", {m: step.task.correct(u, step.target) for m, u in said.items()})
        own = {m: step.loss(logits) for m, logits in said.items()}
        if self.direction == "gradients":
            layers = last_layers(step.model.fusion, step.model.outputs)
            lasts = self.classifiers.last_weights()
            step.note("slopes", cosine_slopes(losses["joint"], layers, own, lasts))
        return losses | {f"classifier of {m}": loss for m, loss in own.items()}

    def gradients(self, update: Update) -> None:
        # In float64: where the changes cancel, B is one over what rounding leaves of their sum.
        correct = {m: [rows.double() for rows in x] for m, x in update.rows("correct").items()}
        balance = self._balance(global_means(correct))
        if self.direction == "weights":
            self._pull(update.model, balance)
        if self.direction == "gradients":
            self._turn(update, balance)
        for m, b in balance.items():
            if gradient := update.gradient(m):
                torch._foreach_mul_(gradient, (self.rho * b).float())
        if self.clip is not None:
            nn.utils.clip_grad_norm_(update.model.parameters(), self.clip)

    def _balance(self, accuracies: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """B_m of the update; keeps it, and the accuracies for the next one."""
        ema = self.ema
        now = {m: ema * self.previous[m] + (1 - ema) * a for m, a in accuracies.items()}
        balance = share_of_others({m: x - self.previous[m] for m, x in now.items()})
        if self.b_clip is not None:
            balance = {m: b.clamp(-self.b_clip, self.b_clip) for m, b in balance.items()}
        for m, b in balance.items():
            self.previous[m].copy_(now[m])
            self.balance[m].copy_(b)
        return balance

    def _pull(self, model: Multimodal, balance: Mapping[str, Tensor]) -> None:
        """Add the last update's direction term to W_F's gradient, and find this one's."""
        weights = [layer.weight for layer in last_layers(model.fusion, model.outputs)]
        kept = list(self.pulls.values())
        add_to_gradients_(weights, kept)
        pulls = alignment_pull(balance, self.classifiers.last_weights(), weights, self.lam)
        torch._foreach_copy_(kept, pulls)

    def _turn(self, update: Update, balance: Mapping[str, Tensor]) -> None:
        """Add this update's direction term to the gradient of the last layer."""
        slopes = {m: torch.stack(rows).mean(0) for m, rows in update.rows("slopes").items()}
        averaged_(list(slopes.values()))
        total = sum_of(b.float() * slopes[m] for m, b in balance.items())
        turn = -self.lam / len(balance) * total
        layers = last_layers(update.model.fusion, update.model.outputs)
        parameters = [p for layer in layers for p in layer.parameters()]
        add_to_gradients_(parameters, turn.split([p.numel() for p in parameters]))
