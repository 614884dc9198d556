"""FA: feedback alignment (Lillicrap et al., 2016), a fixed random V that knows nothing of W."""

import torch
from torch import Tensor

from creditflow.feedback.rule import Rule, State, xavier_uniform


def draw(weight: Tensor, generator: torch.Generator | None) -> State:
    """Draws V once, xavier-uniform, signs included."""
    return {"feedback_weight": xavier_uniform(weight, generator)}


RULE = Rule(feedback_weight=lambda weight, state: state["feedback_weight"], initial_state=draw)
