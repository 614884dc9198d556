"""FA: feedback alignment (Lillicrap et al., 2016), a fixed random V that does not depend on W."""

import torch
from torch import Tensor

from creditflow.feedback.rule import SIGMA, Rule, Scale, State, remembered_weight, xavier_uniform


def draw(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> State:
    """Draws V once, xavier-uniform, with random signs."""
    return {"feedback_weight": xavier_uniform(weight, generator, scale)}


RULE = Rule(
    feedback_weight=remembered_weight,
    initial_state=draw,
    scaled=True,
    title="FA",
    order=50,
    color="#CC79A7",
    marker="v",
    transported_bits=0,
)
