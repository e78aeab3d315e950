"""Logits of subsets of the modalities whose inputs, not features, are blanked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.features import Features, blanked, leaves
from equivox.model import evaluating

if TYPE_CHECKING:
    from equivox.step import Step


def masked_logits(step: Step, subsets: Sequence[Set[str]]) -> dict[frozenset[str], Tensor]:
    """The logits of each subset of the batch's modalities, in eval mode and with a graph.

    An encoder sees no other modality, so one pass over the inputs and one over their blanks serve
    all subsets.

    Raises TypeError for an input without a floating tensor.
    """
    model, inputs = step.model, dict(step.batch.inputs)
    with evaluating(model):
        there = _encoded(step, inputs)
        gone = _encoded(step, inputs | {m: _blank(m, inputs[m]) for m in step.modalities})
        return {
            frozenset(s): model.fused({m: (there if m in s else gone)[m] for m in there}).logits
            for s in subsets
        }


def _encoded(step: Step, inputs: Mapping[str, Any]) -> Features:
    features = step.model.encode(inputs, step.batch.learn)
    keep = step.batch.keep
    return features if keep is None else step.model.blanked(features, keep)


def _blank(modality: str, x: Any) -> Any:
    if not any(leaf.is_floating_point() for leaf in leaves(x)):
        raise TypeError(
            "An input should hold a floating tensor to be replaced by zeros. Found none in that of "
            f"`{modality}`. Blank features instead, or embed the tokens outside the model."
        )
    return blanked(x, False)
