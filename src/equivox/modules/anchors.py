"""Copies of encoders' weights, and the pull of what learns towards them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equivox.modules.constants import constants

Encoders = Mapping[str, Sequence[nn.Parameter]]


class Anchors(nn.Module):
    """What can learn of each modality's encoder, as it was when last remembered.

    Arguments: `encoders`, the parameters by modality, always in the same order.

    >>> w = nn.Parameter(torch.ones(2))
    >>> anchors = Anchors({"audio": [w]})
    >>> w.data, w.grad = torch.tensor([1.0, 3.0]), torch.zeros(2)
    >>> anchors.pull_("audio", [w], torch.tensor(0.5))
    >>> w.grad
    tensor([0., 1.])
    """

    def __init__(self, encoders: Encoders) -> None:
        super().__init__()
        learning = {
            m: {str(i): p for i, p in enumerate(encoder) if p.requires_grad}
            for m, encoder in encoders.items()
        }
        self.weights = nn.ModuleDict({m: constants(named) for m, named in learning.items()})

    @torch.no_grad()
    def remember_(self, encoders: Encoders) -> None:
        """Take the weights as they are now."""
        for modality, encoder in encoders.items():
            for i, kept in self.weights[modality].named_parameters():
                kept.copy_(encoder[int(i)])

    @torch.no_grad()
    def pull_(self, modality: str, encoder: Sequence[nn.Parameter], strength: Tensor) -> None:
        """g <- g + strength (w - w'), the gradient of strength / 2 |w - w'|²."""
        kept = [(encoder[int(i)], x) for i, x in self.weights[modality].named_parameters()]
        if pairs := [(p, x) for p, x in kept if p.grad is not None]:
            drift = torch._foreach_sub([p for p, _ in pairs], [x for _, x in pairs])
            torch._foreach_mul_(drift, strength)
            torch._foreach_add_([p.grad for p, _ in pairs if p.grad is not None], drift)
