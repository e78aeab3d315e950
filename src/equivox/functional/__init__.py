"""The mathematics that methods, diagnosis and evaluation share: pure functions on tensors."""

from equivox.functional.clustering import purity
from equivox.functional.discrepancy import mean_of_others, ratio_to_others
from equivox.functional.gradients import flat_dot, flat_norm, scale_gradient
from equivox.functional.min_norm import min_norm_pair, min_norm_weights
from equivox.functional.probe import linear_probe, logistic_probe
from equivox.functional.prototypes import class_means, entropy, prototype_logits
from equivox.functional.shapley import (
    Imbalance,
    SampledShapley,
    imbalance,
    interactions,
    sampled_shapley_values,
    shapley_values,
    subsets,
)
from equivox.functional.similarity import cosine_logits, supervised_nce, unit

__all__ = [
    "Imbalance",
    "SampledShapley",
    "class_means",
    "cosine_logits",
    "entropy",
    "flat_dot",
    "flat_norm",
    "imbalance",
    "interactions",
    "linear_probe",
    "logistic_probe",
    "mean_of_others",
    "min_norm_pair",
    "min_norm_weights",
    "prototype_logits",
    "purity",
    "ratio_to_others",
    "sampled_shapley_values",
    "scale_gradient",
    "shapley_values",
    "subsets",
    "supervised_nce",
    "unit",
]
