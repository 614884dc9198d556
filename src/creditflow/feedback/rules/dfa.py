"""DFA: direct feedback alignment (Nokland, 2016): each layer's input is told the output's error through a fixed random B.

With e = dL/dlogits of shape (N, K), as the running backward pass gives it at the output of the view:

- Linear, B of shape (K, inputs): the input's gradient is e B. An input of more than two dimensions, such as
  (N, positions, inputs), gets e B at each position.
- Conv2d, B of shape (K, input channels, height, width): e stands at each place of the layer's output map and goes down
  through the transposed convolution with B, as in BioTorch. Groups do not divide it: all K errors reach each channel.

So delta_{l-1} = (e B_l) * f'(a_{l-1}), where other layers in between (activations, pooling, normalisation) keep their exact
backward, and dW_l = delta_l^T h_{l-1} keeps its form. B is xavier-uniform with the fans of its own shape.
"""

import torch
from torch import Tensor

from creditflow.feedback.rule import Rule, State, xavier_uniform


def draw(weight: Tensor, generator: torch.Generator | None) -> State:
    """Draws B once; `weight` has its shape."""
    return {"feedback_weight": xavier_uniform(weight, generator)}


RULE = Rule(feedback_weight=lambda weight, state: state["feedback_weight"], initial_state=draw, direct=True)
