"""uSF: uniform sign-concordant feedback (Liao et al., 2016), V = sigma sign(W).

Liao et al. and the sign-symmetry paper give no scale. sigma = sqrt(2 / (fan_in + fan_out)) keeps the size of the error
from layer to layer, and it equals the root mean square of the random magnitudes of frSF and brSF.
With the scale `norm`, sigma is the root mean square that W has, over its elements that are not zero, at the start.
"""

import math

import torch
from torch import Tensor

from creditflow.feedback.rule import SIGMA, Rule, Scale, State, sign_concordant, xavier_sigma


def constant(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> State:
    """Returns sigma as a scalar. It follows from the fans or the norm of W, which some rows of W do not tell."""
    sigma = xavier_sigma(weight, scale.groups)
    if scale.norm is not None:
        sigma = scale.norm / math.sqrt(max(1, int(torch.count_nonzero(weight))))
    return {"magnitude": sigma * weight.new_ones(())}


RULE = Rule(
    feedback_weight=sign_concordant,
    initial_state=constant,
    scaled=True,
    elementwise=True,
    title="uSF",
    order=20,
    color="#0072B2",
    marker="s",
    transported_bits=1,
)
