"""brSF: batchwise random-magnitude sign-concordant feedback (Liao et al., 2016): frSF with M redrawn as W changes.

M is redrawn after each parameter update, as the sign-symmetry paper defines it; not at each forward pass, which
would give an evaluation or an attack other magnitudes every time it looks.
"""

import torch
from torch import Tensor

from creditflow.learning.rule import Rule, State
from creditflow.learning.rules.frsf import draw_magnitude, feedback_weight


def redraw(weight: Tensor, state: State, generator: torch.Generator | None) -> State:
    """Returns fresh magnitudes."""
    return draw_magnitude(weight, generator)


RULE = Rule(feedback_weight=feedback_weight, initial_state=draw_magnitude, after_update=redraw)
