"""DFA: direct feedback alignment (Nokland, 2016): the error at the output reaches each layer through a fixed random B.

Let e = dL/dlogits, of shape (N, K), be the error that the running backward pass gives at the output of the view.

- Linear: B has the shape (K, inputs), and the gradient of the input is e B. An input of more than two dimensions, such
as
  (N, positions, inputs), gets e B at each position.
- Conv2d: B has the shape (K, input channels, height, width). A map that holds e at each position of the output goes
down
  through the transposed convolution with B, as in BioTorch. Groups do not divide B: all K errors reach each channel.

So delta_{l-1} = (e B_l) * f'(a_{l-1}). The layers in between (activations, pooling, normalisation) keep their exact
backward, and dW_l = delta_l^T h_{l-1} keeps its form. B is xavier-uniform, with the fans of the shape of B.
With the scale `norm`, B has the norm of the layer's W.
"""

import torch
from torch import Tensor

from creditflow.feedback.rule import SIGMA, Rule, Scale, State, remembered_weight, xavier_uniform


def draw(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> State:
    """Draws B once; `weight` has the shape of B."""
    return {"feedback_weight": xavier_uniform(weight, generator, scale)}


RULE = Rule(
    feedback_weight=remembered_weight,
    initial_state=draw,
    scaled=True,
    direct=True,
    title="DFA",
    order=60,
    color="#E69F00",
    marker="P",
    transported_bits=0,
)
