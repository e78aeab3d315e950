"""Small classifiers beside the model, one a modality, that send nothing back to the encoders."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from equivox.features import Features, map_values, project
from equivox.fusion import Concat, Sum
from equivox.modules.gated_features import GatedFeatures


class DetachedClassifiers(nn.ModuleDict):
    """A hidden layer and a linear one for each modality, on its detached feature.

    Arguments: `widths` of the features by modality, `hidden` units, `outputs`.

    >>> import torch
    >>> heads = DetachedClassifiers({"audio": 4}, hidden=8, outputs=3)
    >>> heads.say({"audio": torch.zeros(2, 4)})["audio"].shape
    torch.Size([2, 3])
    """

    def __init__(self, widths: Mapping[str, int], hidden: int, outputs: int) -> None:
        super().__init__(
            {
                m: nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
                for m, width in widths.items()
            }
        )

    def say(self, features: Features, pool: bool = True) -> dict[str, Tensor]:
        """The logits of each modality; without pooling, at every position of dense features."""
        detached = {m: map_values(Tensor.detach, z) for m, z in features.items()}
        return {m: project(self[m], z, pool) for m, z in detached.items()}

    def last_weights(self) -> dict[str, Tensor]:
        """The weights of the classifiers' last layers, (outputs, hidden) each."""
        return {m: classifier.get_parameter("2.weight") for m, classifier in self.items()}


def last_layers(fusion: nn.Module, outputs: int | None) -> list[nn.Linear]:
    """The layers whose outputs are summed to the logits: the fusion's last one, or those of `Sum`.

    Empty where the fusion has no linear layer that writes as many outputs.
    """
    fusion = _ungated(fusion)
    if isinstance(fusion, Sum):
        return [layer for layer in fusion.linears.values() if isinstance(layer, nn.Linear)]
    if isinstance(declared := getattr(fusion, "linear", None), nn.Linear):
        return [declared]
    found = [layer for layer in fusion.modules() if isinstance(layer, nn.Linear)]
    return [layer for layer in found if layer.out_features == outputs][-1:]


def late_gradients(fusion: nn.Module, modality: str) -> list[Tensor]:
    """The gradient of the late-fusion weight that reads one modality alone, a view of it."""
    fusion = _ungated(fusion)
    if isinstance(fusion, Concat) and (gradient := fusion.linear.weight.grad) is not None:
        parts = gradient.split(list(fusion.widths.values()), dim=1)
        return [dict(zip(fusion.widths, parts, strict=True))[modality]]
    if isinstance(fusion, Sum):
        return [p.grad for p in fusion.branch(modality) if p.ndim == 2 and p.grad is not None]
    return []


def _ungated(fusion: nn.Module) -> nn.Module:
    return fusion.inner if isinstance(fusion, GatedFeatures) else fusion
