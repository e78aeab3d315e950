"""AUG: Mitigating Classification Ability Disproportion by Sustained Boosting (NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox.distributed import summed
from equivox.features import Features, vector
from equivox.fusion import Fused, Fusion, sum_of
from equivox.method import Batch, Method
from equivox.task import MultiLabel, Regression, Task

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step, Update


def residual_losses(
    added: Float[Tensor, " batch *outputs"],
    known: Float[Tensor, " batch *outputs"],
    target: Any,
    task: Task,
    lam: float,
) -> Float[Tensor, " batch"]:
    """Every sample's loss of the newest classifier against y - lam (y * known), a constant.

    Classification: -sum_k t_k log softmax(added)_k with t = y (1 - lam known), at least 0. Multi-
    label: binary cross entropy with such a t. Regression: the loss against y - lam `known`.

    :param known: What the classifiers before predict: probabilities, or a number.

    >>> from equivox import Classification
    >>> pre, added = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.2, 0.0]])
    >>> residual_losses(added, pre.softmax(-1), torch.tensor([0]), Classification(), lam=0.5)
    tensor([0.6075])
    """
    known = known.detach()
    if isinstance(task, Regression):
        return task.loss(added, target - lam * known.view_as(target), reduction="none")
    share = (1 - lam * known).clamp(min=0)
    if isinstance(task, MultiLabel):
        wanted = target.to(known) * share
        each = F.binary_cross_entropy_with_logits(added.float(), wanted, reduction="none")
        return each.mean(-1)
    y = target  # probabilities, or class numbers; `F.one_hot` would wait for the device
    if not target.is_floating_point():
        y = torch.zeros_like(known).scatter(-1, target.unsqueeze(-1), 1.0)
    return -(y * share * added.float().log_softmax(-1)).sum(-1)


def weak_modality(scores: Mapping[str, float], sigma: float = 1.0, tau: float = 0.01) -> str | None:
    """The modality that gets another classifier, or None within the dead zone.

    Two: r = s_1 / s_2; the second where r > sigma + tau, the first where r < sigma - tau. More: the
    weakest where its ratio to the strongest is so large.

    >>> weak_modality({"audio": 1.02, "video": 1.0}), weak_modality({"audio": 1.0, "video": 1.0})
    ('video', None)
    """
    if len(scores) < 2:
        return None
    tiny = 1e-12
    if len(scores) == 2:
        (first, a), (second, b) = scores.items()
        ratio = (a + tiny) / (b + tiny)
        return second if ratio > sigma + tau else first if ratio < sigma - tau else None
    weakest = min(scores, key=lambda m: scores[m])
    ratio = (max(scores.values()) + tiny) / (scores[weakest] + tiny)
    return weakest if ratio > sigma + tau else None


class Classifiers(NamedTuple):
    """The logits of a modality's classifiers, (room, batch, outputs), and which are switched on."""

    each: Tensor
    on: Tensor  # (room, 1, 1)
    newest: Tensor  # (room, 1, 1)

    def all(self) -> Tensor:
        """The sum of all that are on."""
        return torch.where(self.on, self.each, 0).sum(0)

    def before(self) -> Tensor:
        """The sum of all but the newest; zero where there is one."""
        return torch.where(self.on & ~self.newest, self.each, 0).sum(0)

    def added(self) -> Tensor:
        """The newest."""
        return torch.where(self.newest, self.each, 0).sum(0)


class Growing(Fusion):
    """Classifiers a modality that add up, and a weighted mean over modalities of what they say.

    A classifier is a linear layer of its own, ReLU, and one linear layer that all share. There is
    room for `capacity` of them a modality; `counts` says how many are switched on.
    """

    partial = True
    counts: Tensor

    def __init__(
        self,
        widths: Mapping[str, int],
        outputs: int,
        capacity: int,
        hidden: int,
        weights: Mapping[str, float],
    ) -> None:
        super().__init__(widths, outputs)
        self.mean_weights = dict(weights)
        self.rooms = nn.ModuleDict(
            {
                m: nn.ModuleList(nn.Linear(width, hidden) for _ in range(capacity))
                for m, width in widths.items()
            }
        )
        self.shared = nn.Linear(hidden, outputs)
        self.register_buffer("counts", torch.ones(len(widths), dtype=torch.long))

    def forward(self, features: Features) -> Fused:
        said = {m: self.classifiers(m, features[m]) for m in self.widths if m in features}
        total = sum(self.mean_weights[m] for m in said)
        logits = sum_of(self.mean_weights[m] / total * c.all() for m, c in said.items())
        return Fused(logits, said)

    def classifiers(self, modality: str, feature: Any) -> Classifiers:
        """What each of a modality's classifiers says."""
        x = vector(feature)
        layers: Any = self.rooms[modality]
        each = self.shared(torch.stack([layer(x).relu() for layer in layers]))
        count = self.counts[list(self.widths).index(modality)].clone()
        number = torch.arange(1, len(layers) + 1, device=x.device).view(-1, 1, 1)
        return Classifiers(each, number <= count, number == count)

    def unimodal(self, features: Features) -> dict[str, Tensor]:
        return {m: self.classifiers(m, features[m]).all() for m in self.widths if m in features}

    def branch(self, modality: str) -> list[nn.Parameter]:
        return list(self.rooms[modality].parameters())

    @torch.no_grad()
    def grow(self, modality: str, generator: torch.Generator) -> list[nn.Parameter]:
        """Switch one more classifier on, made anew; its parameters, none where there is no room."""
        place = list(self.widths).index(modality)
        layers: Any = self.rooms[modality]
        count = int(self.counts[place])
        if count == len(layers):
            return []
        layer = layers[count]
        fresh = torch.empty(layer.weight.shape)  # drawn on the CPU: equal on every rank and device
        layer.weight.copy_(nn.init.xavier_normal_(fresh, generator=generator))
        layer.bias.zero_()
        self.counts[place] += 1
        return list(layer.parameters())


class SustainedBoosting(Method):
    """Train modalities by turns, and give the weak one classifiers that fit what is left over.

    z_m is the sum of modality m's classifiers. A step of one modality minimises

        L = l(all, y) + l(pre, y) + l(add, y - lam (y * softmax(pre))),

    with `all` the sum, `add` the newest classifier and `pre` the sum of those before; with one
    classifier, l(all, y). Every batch becomes one update a modality. At the start of an epoch, if
    one modality scored higher than another while training, see `weak_modality`, the weak one gets
    a classifier. The prediction is sum_m alpha_m z_m; `Growing` replaces the fusion.

    Arguments:
        lam: smoothing of the residual label; the authors search 0.1, 0.2, 0.33, 0.5 and 1.
        sigma, tau: ratio of the scores and dead zone; 1 and 0.01.
        period: epochs between checks, and one after the first: a tenth of the training in the code;
            20 on CREMA-D, 10 on Kinetics-Sounds and VGGSound, 5 and 1 for text.
        capacity: most classifiers of a modality (ours).
        hidden: width of a classifier; 256.
        weights: alpha by modality; equal if None. The code's are 0.4 for audio, 0.6 for video.
        residual: "sum" takes the softmax of the summed logits (code), "sum_probs" the sum of each
            classifier's probabilities (paper), at most 1 / lam.
        alternate: False is one step of all modalities together (the paper's listing).
        train_added: False: added classifiers stay as drawn, as in effect in the released code.
        accumulation: how many forwards the loop makes before a step: as many batches of a modality
            then come together.

    Raises ValueError for arguments out of range or `weights` of other modalities.

    Departures: scores are means, not sums. A classifier is added before an epoch, so that training
    never ends with one that has not learned. Multi-label and regression are ours.

    Source: Jiang, Huang and Yang, NeurIPS 2025, arXiv 2502.20120.

    >>> SustainedBoosting(period=10).lam
    0.5
    """

    category = "optimization"
    tasks = ("Classification", "MultiLabel", "Regression")
    replaces_fusion = True
    leaves_unused = True
    ingredients = frozenset({"unimodal losses", "extra parameters"})
    search_space: ClassVar[Mapping[str, Any]] = {
        "lam": (0.5, 0.1, 0.2, 0.33, 1.0),
        "period": (20, 10, 5, 1),
    }
    brief: ClassVar[Mapping[str, Any]] = {"period": 1, "tau": 0.0, "hidden": 8, "capacity": 3}
    exceptions: ClassVar[Mapping[str, str]] = {
        "equals_in_micro_batches": "two forwards an update need `accumulation=2`",
    }
    scores: Tensor  # of this epoch so far: sums over samples, and how many

    def __init__(
        self,
        *,
        lam: float = 0.5,
        sigma: float = 1.0,
        tau: float = 0.01,
        period: int = 20,
        capacity: int = 10,
        hidden: int = 256,
        weights: Mapping[str, float] | None = None,
        residual: str = "sum",
        alternate: bool = True,
        train_added: bool = True,
        accumulation: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= lam <= 1 or sigma <= 0 or tau < 0:
            raise ValueError(
                "`lam` should lie in [0, 1], `sigma` be positive, `tau` zero or more. Found "
                f"{lam}, {sigma} and {tau}."
            )
        counts = {"period": period, "capacity": capacity, "hidden": hidden}
        for name, value in (counts | {"accumulation": accumulation}).items():
            if value < 1:
                raise ValueError(f"`{name}` should be one or more. Found `{name} = {value}`.")
        if residual not in ("sum", "sum_probs"):
            raise ValueError(f'`residual` should be "sum" or "sum_probs". Found `{residual!r}`.')
        self.lam = lam
        self.sigma = sigma
        self.tau = tau
        self.period = period
        self.capacity = capacity
        self.hidden = hidden
        self.weights = weights
        self.residual = residual
        self.alternate = alternate
        self.train_added = train_added
        self.accumulation = accumulation

    def setup(self, model: Multimodal, task: Task) -> Task:
        weights = self.weights or dict.fromkeys(model.modalities, 1.0)
        if set(weights) != set(model.modalities) or min(weights.values()) <= 0:
            raise ValueError(
                f"`weights` should be positive, one for each of {list(model.modalities)}. Found "
                f"{weights}."
            )
        model.require("widths", "outputs")
        model.fusion = Growing(
            model.widths, model.outputs or 1, self.capacity, self.hidden, weights
        )
        self.register_buffer("scores", torch.zeros(2, len(model.modalities)))
        return task

    def prepare(self, run: Run) -> None:
        if run.number == 1 or (run.number and run.number % self.period == 0):
            total, count = self.scores
            means = (total / count.clamp(min=1)).tolist()
            named = dict(zip(run.model.modalities, means, strict=True))
            weak = weak_modality(named, self.sigma, self.tau)
            if weak is not None:
                generator = torch.Generator().manual_seed(run.seed * 100_003 + run.number)
                run.forget(_fusion(run.model).grow(weak, generator))
        self.scores.zero_()

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        iterator = iter(batches)
        if not self.alternate:
            yield from iterator
        while group := list(islice(iterator, self.accumulation)):
            for modality in run.model.modalities:
                yield from (b.only(modality) for b in group if modality in b.inputs)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        said: dict[str, Classifiers] = step.output.extra
        step.note("score", {m: step.score(c.all().detach()) for m, c in said.items()})
        rest = {name: loss for name, loss in losses.items() if name != "joint"}
        return rest | {m: self.boosting_loss(c, step) for m, c in said.items()}

    def boosting_loss(self, said: Classifiers, step: Step) -> Tensor:
        """L of one modality."""
        loss = step.loss(said.all())
        pre = said.before()
        known = step.task.probabilities(pre)
        if self.residual == "sum_probs":
            each = torch.stack([step.task.probabilities(z) for z in said.each])
            known = torch.where(said.on & ~said.newest, each, 0).sum(0)
        rows = residual_losses(said.added(), known, step.target, step.task, self.lam)
        boosted = step.loss(pre) + step.average(rows)
        return loss + torch.where(said.newest[0].view(()), 0, boosted)

    def gradients(self, update: Update) -> None:
        if not self.train_added:
            for layers in _fusion(update.model).rooms.values():
                for parameter in layers[1:].parameters():
                    parameter.grad = None

    def updated(self, update: Update) -> None:
        for modality, rows in update.rows("score").items():
            total = sum_of(part.sum() for part in rows)
            count = total.new_tensor(sum(len(part) for part in rows))
            both = summed([torch.stack([total, count])])[0]
            self.scores[:, update.model.modalities.index(modality)] += both


def _fusion(model: Multimodal) -> Any:
    return model.fusion
