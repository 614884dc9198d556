"""The names that settings choose from. What they stand for lies in files that import torch; a test compares the two."""

from typing import Literal

ActivationName = Literal["relu", "tanh", "linear"]
"""Keys of `creditflow.populations.network.ACTIVATIONS`."""

InitialisationName = Literal["he_uniform", "default", "gaussian", "xavier_normal"]
"""Ways to draw weights, see `creditflow.populations.network.initial_parameters`."""

LossName = Literal["mse", "mse_softmax", "cross_entropy"]
"""Keys of `creditflow.populations.losses.LOSSES`."""
