"""Shapley contributions: what share of a prediction each modality has.

Coalitions -> logits of every coalition -> Shapley values -> contributions. Pure functions on tensors; nothing here
knows optimizers or training. Coalitions of `M` modalities come in bitmask order `1 .. 2**M - 1`: bit `i` of the number
says whether modality `i` is present. The empty coalition is worth 0 by definition, `v(empty) := 0`, as AGM's code has it
(Li et al. 2023); so the values of all modalities sum to the value of the full coalition.

Eq. 17 to 19 of the M-SAM paper need three corrections, which are made here: the sum includes the empty coalition (without
it Eq. 18 fails), the factor 1/2 of Eq. 19 stands before the whole bracket, and the modalities *outside* a coalition
are the ones replaced by zeros.
"""

from msam._modules import evaluating
from msam.shapley._contributions import VALUES, Value, contributions, normalised
from msam.shapley._logits import coalition_logits
from msam.shapley._values import Sampled, coalitions, sampled_shapley_values, shapley_values

__all__ = [
    "VALUES",
    "Sampled",
    "Value",
    "coalition_logits",
    "coalitions",
    "contributions",
    "evaluating",
    "normalised",
    "sampled_shapley_values",
    "shapley_values",
]
