"""uSF: uniform sign-concordant feedback (Liao et al., 2016), V = sigma sign(W).

Liao et al. and the sign-symmetry paper give no scale; sigma = sqrt(2 / (fan_in + fan_out)) keeps the error's size
from layer to layer and equals the root mean square of the random magnitudes of frSF and brSF.
"""

from torch import Tensor

from creditflow.learning.rule import Rule, State, xavier_sigma


def feedback_weight(weight: Tensor, state: State) -> Tensor:
    """Returns sigma sign(W); sign(0) = 0."""
    return xavier_sigma(weight) * weight.sign()


RULE = Rule(feedback_weight=feedback_weight)
