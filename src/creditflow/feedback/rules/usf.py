"""uSF: uniform sign-concordant feedback (Liao et al., 2016), V = sigma sign(W).

Liao et al. and the sign-symmetry paper give no scale; sigma = sqrt(2 / (fan_in + fan_out)) keeps the error's size
from layer to layer and equals the root mean square of the random magnitudes of frSF and brSF.
"""

import torch
from torch import Tensor

from creditflow.feedback.rule import Rule, State, sign_concordant, xavier_sigma


def scale(weight: Tensor, generator: torch.Generator | None) -> State:
    """Returns sigma as a scalar: parts of W no longer know the fans that it follows from."""
    return {"magnitude": xavier_sigma(weight) * weight.new_ones(())}


RULE = Rule(feedback_weight=sign_concordant, initial_state=scale, elementwise=True)
