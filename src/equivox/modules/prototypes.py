"""Prototypes: the mean feature of every class, and the classifier that measures distances to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivox.functional import class_means, prototype_logits
from equivox.functional.prototypes import moved_prototypes

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Prototypes(nn.Module):
    """The prototypes of every modality, constants for the gradient.

    A sample is asked one question or several (one for each label, say), each with classes of its
    own. `seen`, (questions, classes), tells which classes have a prototype.

    Arguments:
        widths: of the features, by modality.
        questions: how many are asked of a sample.
        classes: how many answer each.

    >>> prototypes = Prototypes({"audio": 2}, questions=1, classes=2)
    >>> prototypes.move({"audio": torch.eye(2)}, torch.tensor([[0], [1]]), momentum=0.2)
    >>> prototypes.logits("audio", torch.zeros(1, 2))
    tensor([[[-1., -1.]]])
    """

    seen: Tensor

    def __init__(self, widths: Mapping[str, int], questions: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(questions, classes, dtype=torch.bool))
        for modality, width in widths.items():
            self.register_buffer(f"of_{modality}", torch.zeros(questions * classes, width))

    def of(self, modality: str) -> Float[Tensor, "prototypes features"]:
        """The prototypes of one modality, question by question."""
        return self.get_buffer(f"of_{modality}")

    def move(
        self,
        features: Mapping[str, Float[Tensor, "batch features"]],
        labels: Int[Tensor, "batch questions"],
        momentum: float,
    ) -> None:
        """Take the class means of these samples, with `momentum` on what was there before.

        Classes without a sample keep their prototypes.
        """
        questions, classes = self.seen.shape
        flat = (labels + classes * torch.arange(questions, device=labels.device)).flatten()
        found = flat.bincount(minlength=self.seen.numel()) > 0
        for modality, z in features.items():
            rows = z.repeat_interleave(questions, 0)
            sums, counts = class_means(rows, flat, self.seen.numel())
            old, new = self.of(modality), sums / counts.clamp(min=1)[:, None]
            old.copy_(moved_prototypes(old, new, self.seen.flatten(), found, momentum))
        self.seen |= found.view_as(self.seen)

    def logits(
        self, modality: str, feature: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch questions classes"]:
        """The negative distances of features to the prototypes; -inf where there is none."""
        logits = prototype_logits(feature, self.of(modality), self.seen.flatten())
        return logits.view(-1, *self.seen.shape)

    def known(self, labels: Int[Tensor, "batch questions"]) -> Bool[Tensor, "batch questions"]:
        """Whether there is a prototype of each sample's own class."""
        return self.seen[torch.arange(len(self.seen), device=labels.device), labels]
