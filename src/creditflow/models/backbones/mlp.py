"""A multilayer perceptron: flattened pixels and hidden layers. What a population of networks is saved as."""

from collections.abc import Sequence
from math import prod

from torch import nn

from creditflow.errors import UserError

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "linear": nn.Identity}


def build(image_shape: tuple[int, int, int], hidden: Sequence[int] = (1024,), activation: str = "relu") -> tuple[nn.Module, int]:
    """Returns the layers up to the last hidden one, and its width.

    Raises UserError for an unknown activation.
    """
    if activation not in _ACTIVATIONS:
        raise UserError(f"unknown activation {activation!r}; choose from: {', '.join(sorted(_ACTIVATIONS))}")
    layers: list[nn.Module] = [nn.Flatten()]
    n_in = prod(image_shape)
    for width in hidden:
        layers += [nn.Linear(n_in, width), _ACTIVATIONS[activation]()]
        n_in = width
    return nn.Sequential(*layers), n_in
