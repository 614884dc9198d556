"""KP (Kolen and Pollack, 1994): V takes every step that W takes, and what differs between them decays.

Their rule is dW = -r g - lambda W, dV = -r g - lambda V with the same g, so that V - W shrinks by 1 - lambda with each step. Seen from
outside, whatever the optimiser does to W, V does the same, and D = V - W decays: D is all there is to remember. (W's own decay is
the optimiser's business.)
"""

import torch
from torch import Tensor

from creditflow.feedback.rule import Rule, State, xavier_uniform

#: lambda: after 1,000 updates a third of the difference is left. Without any decay V would never come nearer to W.
DECAY = 1e-3


def draw(weight: Tensor, generator: torch.Generator | None) -> State:
    """Draws V once as FA does, and keeps its difference to W."""
    return {"difference": xavier_uniform(weight, generator) - weight}


def shrink(weight: Tensor, state: State) -> State:
    """Takes the decay of one step."""
    return {"difference": state["difference"].mul_(1 - DECAY)}


def feedback_weight(weight: Tensor, state: State, out: Tensor | None = None) -> Tensor:
    """Returns V = W + D."""
    return torch.add(weight, state["difference"], out=out)


RULE = Rule(feedback_weight=feedback_weight, initial_state=draw, after_update=shrink, elementwise=True)
