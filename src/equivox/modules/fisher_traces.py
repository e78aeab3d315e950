"""The trace of the Fisher information of encoders, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equivox.functional.fisher import add_squares_, fisher_trace, relative_growth
from equivox.functional.precision import at_least_float32
from equivox.modules.constants import constants


class FisherTraces(nn.Module):
    """Sums each epoch's squared gradients of every encoder's weights; `growth` is of their trace.

    Weights have two dimensions or more: no biases, no norm layers.

    Arguments: `encoders`, the parameters by modality, always in the same order; `smooth` and
    `undefined` of `relative_growth`.

    >>> w = nn.Parameter(torch.ones(1, 2))
    >>> w.grad = torch.tensor([[1.0, 3.0]])
    >>> traces = FisherTraces({"audio": [w]})
    >>> traces.add_("audio", [w])
    >>> traces.finish_epoch_()
    >>> traces.history["audio"].tolist(), traces.growth["audio"].item()
    ([0.0, 5.0], 1.0)
    """

    def __init__(
        self,
        encoders: Mapping[str, Sequence[nn.Parameter]],
        smooth: int = 1,
        undefined: float = 0.0,
    ) -> None:
        super().__init__()
        self.smooth = smooth
        self.undefined = undefined
        self.squares = nn.ModuleDict({m: constants(_zeros(ps)) for m, ps in encoders.items()})
        self.history = constants(dict.fromkeys(encoders, torch.zeros(smooth + 1)))
        self.growth = constants(dict.fromkeys(encoders, torch.zeros(())))

    @torch.no_grad()
    def add_(self, modality: str, encoder: Sequence[nn.Parameter]) -> None:
        """Add the squared gradients of one more batch."""
        kept = [(encoder[int(i)].grad, x) for i, x in self.squares[modality].named_parameters()]
        pairs = [(g, x) for g, x in kept if g is not None]
        add_squares_([x for _, x in pairs], [g for g, _ in pairs])

    @torch.no_grad()
    def finish_epoch_(self) -> None:
        """Compare the traces with those of the epochs before; the sums begin anew."""
        for m, history in self.history.items():
            squares: list[Tensor] = list(self.squares[m].parameters())
            history.copy_(torch.cat([history[1:], fisher_trace(squares).view(1).to(history)]))
            self.growth[m].copy_(relative_growth(history, self.smooth, self.undefined))
            for square in squares:
                square.zero_()


def _zeros(encoder: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    named = {str(i): p for i, p in enumerate(encoder) if p.requires_grad and p.ndim >= 2}
    return {i: at_least_float32(torch.zeros_like(p)) for i, p in named.items()}
