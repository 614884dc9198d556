"""frSF: fixed random-magnitude sign-concordant feedback (Liao et al., 2016), V = M * sign(W), M drawn once."""

import torch
from torch import Tensor

from creditflow.learning.rule import Rule, State, xavier_uniform


def draw_magnitude(weight: Tensor, generator: torch.Generator | None) -> State:
    """Draws M = |xavier_uniform|, that is U(0, sqrt(3) sigma), of the weight's shape."""
    return {"magnitude": xavier_uniform(weight, generator).abs()}


def feedback_weight(weight: Tensor, state: State) -> Tensor:
    """Returns M * sign(W); sign(0) = 0."""
    return state["magnitude"] * weight.sign()


RULE = Rule(feedback_weight=feedback_weight, initial_state=draw_magnitude)
