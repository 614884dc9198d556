"""KP (Kolen and Pollack, 1994): V takes every step that W takes, and the difference between them decays.

Their rule is dW = -r g - lambda W and dV = -r g - lambda V with the same g, so that each step multiplies V - W by 1 -
lambda. In other words, V does whatever the optimiser does to W, and D = V - W decays. So the rule remembers D only. The
decay of W is up to the optimiser.

In pure bfloat16 (`model.bfloat16()`) a factor of 1 - lambda is rounded away, so that V never comes closer to W. Keep
the parameters in float32, and use autocast.
"""

import torch
from torch import Tensor

from creditflow.feedback.rule import SIGMA, Rule, Scale, State, xavier_uniform

#: lambda. After 1,000 updates a third of the difference is left. Without a decay V would never come closer to W.
DECAY = 1e-3


def draw(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> State:
    """Draws V once, as FA does, and returns its difference from W."""
    return {"difference": xavier_uniform(weight, generator, scale) - weight}


def shrink(weight: Tensor, state: State) -> State:
    """Applies the decay of one step."""
    return {"difference": state["difference"].mul_(1 - DECAY)}


def feedback_weight(weight: Tensor, state: State, out: Tensor | None = None) -> Tensor:
    """Returns V = W + D."""
    return torch.add(weight, state["difference"], out=out)


RULE = Rule(
    feedback_weight=feedback_weight,
    initial_state=draw,
    after_update=shrink,
    scaled=True,
    elementwise=True,
    title="KP",
    order=80,
    color="#009E73",
    marker=">",
    transported_bits=0,
)
