"""What a method remembers: tensors that checkpoints keep and no optimizer moves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn


def constants(values: Mapping[str, Tensor] | Sequence[Tensor]) -> nn.ParameterDict:
    """Copies of these tensors as frozen parameters, by name or by position, in the order given.

    >>> import torch
    >>> kept = constants({"audio": torch.zeros(())})
    >>> kept["audio"].requires_grad
    False
    """
    named = values if isinstance(values, Mapping) else {str(i): x for i, x in enumerate(values)}
    copies = ((name, x.detach().clone()) for name, x in named.items())
    # A plain dictionary would be sorted by name: "10" before "2".
    frozen = OrderedDict((name, nn.Parameter(x, requires_grad=False)) for name, x in copies)
    return nn.ParameterDict(frozen)
