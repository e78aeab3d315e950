"""InfoReg (CVPR 2025).

Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from equivox.distributed import summed
from equivox.functional.fisher import add_squares_, fisher_trace, relative_growth
from equivox.functional.precision import at_least_float32
from equivox.method import Method

if TYPE_CHECKING:
    from jaxtyping import Float

    from equivox.model import Multimodal
    from equivox.run import Run
    from equivox.step import Step, Update
    from equivox.task import Task

PAPER = {"beta": 0.9, "threshold": 0.04, "smooth": 1, "score": "log", "trace": "loss"}
PAPER |= {"starts": 2, "unimodal_loss": False}
OFFICIAL = {"beta": 1.0, "threshold": 0.05, "smooth": 10, "score": "prob_sum", "trace": "total"}
OFFICIAL |= {"starts": 0, "unimodal_loss": True}


def lead(scores: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """Delta_m, the mean of s_m - s_j over the modalities j that are worse; 0 where none is.

    >>> lead({"audio": torch.tensor(-0.5), "video": torch.tensor(-1.5)})
    {'audio': tensor(1.), 'video': tensor(0.)}
    """
    every = torch.stack(list(scores.values()))
    gaps = {m: (s - every).clamp(min=0) for m, s in scores.items()}
    return {m: gap.sum() / (gap > 0).sum().clamp(min=1) for m, gap in gaps.items()}


def regulation_strength(delta: Float[Tensor, ""], beta: float) -> Float[Tensor, ""]:
    """alpha = exp(beta tanh(Delta)), and 0 where Delta is 0: nothing is to be regulated.

    >>> regulation_strength(torch.tensor(0.5), beta=0.9)
    tensor(1.5157)
    """
    return torch.where(delta > 0, torch.exp(beta * torch.tanh(delta)), torch.zeros_like(delta))


class InfoReg(Method):
    """Tie encoders that are ahead to their weights of the last epoch, while these still learn fast.

    In its prime learning window, D_m > threshold with D_m the relative growth of the trace of its
    Fisher information over the last epochs, an encoder that leads by Delta_m > 0 gets the
    gradient of (alpha_m / 2) |w_m - w_m'|² besides: g <- g + alpha_m (w_m - w_m'), with w_m' its
    weights at the start of the epoch and alpha_m = exp(beta tanh(Delta_m)). Delta_m is the mean
    lead of s_m over the modalities that are worse; s_m is the mean log-likelihood of modality m's
    share of the logits. The trace is that of all weights with two dimensions or more.

    Arguments:
        beta: how strongly alpha grows with the lead; the paper uses 0.9.
        threshold: K; the paper uses 0.04. With 1 nothing is ever regulated.
        smooth: epochs of the moving mean of the trace; 1 in the paper.
        score: "log", or "prob_sum", the sum of the true classes' probabilities over the batch,
            as the released code.
        trace: "loss", that of the loss alone, or "total", after the term was added.
        starts: first epoch, from 0, with regulation; 2 in the paper, when there are two traces.
        unimodal_loss: True is InfoReg*: a loss of each modality's share of the logits is added.
        variant: "official" is the released code for two modalities, of which the first one's trace
            decides for both: `smooth=10, score="prob_sum", trace="total", unimodal_loss=True,
            threshold=0.05, starts=0`, and alpha = c exp(tanh(Delta)) with c = 0.95 for the first
            modality and 0.1 for the second. No other argument can be changed then.

    Departures: the paper's Eq. 8 has the sign of s_m wrong. For other tasks than classification
    s_m is minus the loss of modality m. The trace sums squared gradients of updates.

    Raises ValueError where `variant="official"` meets other arguments, or not two modalities.

    Source: CVPR 2025, arXiv 2503.18595, Eq. 4-10.

    >>> InfoReg(threshold=0.06)  # doctest: +ELLIPSIS
    InfoReg(beta=0.9, threshold=0.06, smooth=1, score='log', trace='loss', ...)
    """

    category = "optimization"
    search_space: ClassVar[Mapping[str, Any]] = {
        "beta": (0.9, 0.1, 0.3, 0.5, 0.7, 1.0),
        "threshold": (0.04, 0.01, 0.02, 0.06, 0.08, 0.1),
    }
    neutral: ClassVar[Mapping[str, Any]] = {"threshold": 1.0}
    brief: ClassVar[Mapping[str, Any]] = {"starts": 1}

    def __init__(
        self,
        *,
        beta: float = 0.9,
        threshold: float = 0.04,
        smooth: int = 1,
        score: str = "log",
        trace: str = "loss",
        starts: int = 2,
        unimodal_loss: bool = False,
        variant: str = "paper",
    ) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold
        self.smooth = smooth
        self.score = score
        self.trace = trace
        self.starts = starts
        self.unimodal_loss = unimodal_loss
        self.variant = variant
        self._check()
        self.ingredients = frozenset({"unimodal losses"} if self._is("unimodal_loss") else ())  # type: ignore[misc]

    def _check(self) -> None:
        choices = {"score": ("log", "prob_sum"), "trace": ("loss", "total")}
        for name, allowed in (choices | {"variant": ("paper", "official")}).items():
            if (found := getattr(self, name)) not in allowed:
                raise ValueError(f"`{name}` should be one of {allowed}. Found `{found!r}`.")
        for name, least in {"beta": 0, "smooth": 1, "starts": 0}.items():
            if (value := getattr(self, name)) < least:
                raise ValueError(f"`{name}` should be {least} or more. Found `{name} = {value}`.")
        changed = [name for name, value in PAPER.items() if getattr(self, name) != value]
        if self.variant == "official" and changed:
            raise ValueError(
                f'`variant="official"` sets every other argument. Found a value for {changed}. '
                "Leave it out, or leave `variant` out."
            )

    def _is(self, name: str) -> Any:
        """What an argument means here: the released code's value in the official variant."""
        return OFFICIAL[name] if self.variant == "official" else getattr(self, name)

    def setup(self, model: Multimodal, task: Task) -> Task:
        if self.variant == "official" and len(model.modalities) != 2:
            raise ValueError(
                '`variant="official"` is for two modalities. Found '
                f"{list(model.modalities)}. Leave it out: the paper's rule takes any number."
            )
        encoders = {m: model.encoder_parameters(m) for m in model.modalities}
        self.snapshots = nn.ModuleDict({m: _frozen(ps) for m, ps in encoders.items()})
        self.squares = nn.ModuleDict({m: _squares(ps) for m, ps in encoders.items()})
        self.traces = _zeros(encoders, self._is("smooth") + 1)
        self.growth = _zeros(encoders)
        return task

    @torch.no_grad()
    def prepare(self, run: Run) -> None:
        undefined = 1.0 if self.variant == "official" else 0.0
        for m in run.model.modalities:
            squares, trace = list(self.squares[m].parameters()), self.traces[m]
            trace.copy_(torch.cat([trace[1:], fisher_trace(squares).view(1).to(trace)]))
            growth = relative_growth(trace, self._is("smooth"), undefined)
            early = run.number < self._is("starts")
            self.growth[m].copy_(torch.full_like(growth, -torch.inf) if early else growth)
            for square in squares:
                square.zero_()
            for parameter, snapshot in _paired(run.model, m, self.snapshots[m]):
                snapshot.copy_(parameter)

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        split = step.output.split
        step.note("inforeg", {m: self._rows(step, logits) for m, logits in split.items()})
        if not self._is("unimodal_loss"):
            return losses
        return losses | {m: step.loss(logits) for m, logits in split.items()}

    def _rows(self, step: Step, logits: Tensor) -> Tensor:
        if self._is("score") == "prob_sum":
            return step.score(logits)
        return -step.task.loss(logits.detach().float(), step.target, reduction="none")

    def gradients(self, update: Update) -> None:
        strengths = self.strengths(update)
        for m in update.model.modalities:
            if self._is("trace") == "loss":
                self._accumulate(update.model, m)
            pairs = _learning(update.model, m, self.snapshots[m])
            if m in strengths and pairs:
                parameters, snapshots = map(list, zip(*pairs, strict=True))
                drift = torch._foreach_sub(parameters, snapshots)
                torch._foreach_mul_(drift, strengths[m])
                torch._foreach_add_([p.grad for p in parameters], drift)
            if self._is("trace") == "total":
                self._accumulate(update.model, m)

    def strengths(self, update: Update) -> dict[str, Tensor]:
        """alpha_m of the update, 0 for an encoder that is not regulated."""
        if self._is("score") == "prob_sum":
            rows = update.rows("inforeg")
            sums = summed([torch.cat(parts).sum() for parts in rows.values()])
            scores = dict(zip(rows, sums, strict=True))
        else:
            scores = update.mean("inforeg")
        alpha = {m: regulation_strength(d, self._is("beta")) for m, d in lead(scores).items()}
        gates = {m: self.growth[m] > self._is("threshold") for m in alpha}
        if self.variant == "official":
            first, second = update.model.modalities
            gates = dict.fromkeys(alpha, self.growth[first] > self._is("threshold"))
            alpha = {m: a * {first: 0.95, second: 0.1}[m] for m, a in alpha.items()}
        return {m: a * gates[m] for m, a in alpha.items()}

    def _accumulate(self, model: Multimodal, modality: str) -> None:
        pairs = _learning(model, modality, self.squares[modality])
        add_squares_([s for _, s in pairs], [p.grad for p, _ in pairs if p.grad is not None])


def _frozen(parameters: Sequence[nn.Parameter]) -> nn.ParameterDict:
    """Copies of what can learn, by position."""
    copies = {str(i): p.detach().clone() for i, p in enumerate(parameters) if p.requires_grad}
    return nn.ParameterDict({i: nn.Parameter(x, requires_grad=False) for i, x in copies.items()})


def _squares(parameters: Sequence[nn.Parameter]) -> nn.ParameterDict:
    """Zeros for the weights with two dimensions or more: no biases, no norm layers."""
    found = {str(i): p for i, p in enumerate(parameters) if p.requires_grad and p.ndim >= 2}
    zeros = {i: at_least_float32(torch.zeros_like(p.detach())) for i, p in found.items()}
    return nn.ParameterDict({i: nn.Parameter(x, requires_grad=False) for i, x in zeros.items()})


def _zeros(modalities: Iterable[str], *shape: int) -> nn.ParameterDict:
    return nn.ParameterDict(
        {m: nn.Parameter(torch.zeros(shape), requires_grad=False) for m in modalities}
    )


def _paired(model: Multimodal, modality: str, kept: Any) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """The parameters of an encoder, each with what is kept of it."""
    for i, parameter in enumerate(model.encoder_parameters(modality)):
        if str(i) in kept:
            yield parameter, kept[str(i)]


def _learning(model: Multimodal, modality: str, kept: Any) -> list[tuple[nn.Parameter, Tensor]]:
    return [(p, x) for p, x in _paired(model, modality, kept) if p.grad is not None]
