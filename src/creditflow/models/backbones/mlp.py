"""A multilayer perceptron: convolutional layers if any, then flattened pixels or maps, and hidden layers.

The networks of a population are saved as models with this backbone.
"""

from collections.abc import Sequence

from torch import nn

from creditflow.core.errors import UserError

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "linear": nn.Identity}


def build(
    image_shape: tuple[int, int, int],
    hidden: Sequence[int] = (1024,),
    activation: str = "relu",
    convolutions: Sequence[int] = (),
) -> tuple[nn.Module, int]:
    """Returns the layers up to the last hidden one, and the width of the last hidden layer.

    Args:
        image_shape: (channels, height, width).
        hidden: widths of the hidden layers.
        activation: "relu", "tanh" or "linear", after each layer.
        convolutions: output channels of the convolutional layers. Each is a convolution of 5x5 pixels, the activation,
            and max pooling of 3x3 pixels in steps of 2.

    Raises:
        UserError: the activation is unknown.
    """
    if activation not in _ACTIVATIONS:
        raise UserError(f"unknown activation {activation!r}; choose from: {', '.join(sorted(_ACTIVATIONS))}")
    layers: list[nn.Module] = []
    channels, height, width_of_image = image_shape
    for n_out in convolutions:
        layers += [nn.Conv2d(channels, n_out, 5, padding=2), _ACTIVATIONS[activation](), nn.MaxPool2d(3, 2, 1)]
        channels, height, width_of_image = n_out, (height + 1) // 2, (width_of_image + 1) // 2
    layers.append(nn.Flatten())
    n_in = channels * height * width_of_image
    for width in hidden:
        layers += [nn.Linear(n_in, width), _ACTIVATIONS[activation]()]
        n_in = width
    return nn.Sequential(*layers), n_in
