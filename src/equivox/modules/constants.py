"""What a method remembers: tensors that checkpoints keep and no optimizer moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


def constants(values: Mapping[str, Tensor] | Sequence[Tensor]) -> nn.ParameterDict:
    """Copies of these tensors as frozen parameters, by name or by position.

    >>> import torch
    >>> kept = constants({"audio": torch.zeros(())})
    >>> kept["audio"].requires_grad
    False
    """
    named = values if isinstance(values, Mapping) else {str(i): x for i, x in enumerate(values)}
    copies = {name: x.detach().clone() for name, x in named.items()}
    return nn.ParameterDict({k: nn.Parameter(x, requires_grad=False) for k, x in copies.items()})
