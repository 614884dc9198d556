"""uSF: uniform sign-concordant feedback (Liao et al., 2016), V = sigma sign(W).

Liao et al. and the sign-symmetry paper give no scale. sigma = sqrt(2 / (fan_in + fan_out)) keeps the size of the error
from layer to layer, and it equals the root mean square of the random magnitudes of frSF and brSF.
"""

import torch
from torch import Tensor

from creditflow.feedback.rule import Rule, State, sign_concordant, xavier_sigma


def scale(weight: Tensor, generator: torch.Generator | None) -> State:
    """Returns sigma as a scalar. It follows from the fans of W, which some rows of W do not tell."""
    return {"magnitude": xavier_sigma(weight) * weight.new_ones(())}


RULE = Rule(
    feedback_weight=sign_concordant,
    initial_state=scale,
    elementwise=True,
    title="uSF",
    order=20,
    color="#0072B2",
    marker="s",
    transported_bits=1,
)
