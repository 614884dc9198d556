"""A multilayer perceptron, which can begin with convolutions, as pure functions of its parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from creditflow.compute.matmul import mkl_is_held_back
from creditflow.core.errors import UserError

#: `weight1` (n_1, n_0), `bias1` (n_1,), `weight2`, ... as in torch.nn.Linear. Parameters of a population have one more,
#: leading dimension.
Parameters = dict[str, Tensor]


class Value(Protocol):
    """An activation."""

    def __call__(self, z: Tensor, /) -> Tensor:
        """Returns f(z)."""


class Back(Protocol):
    """An activation's derivative in a backward pass."""

    def __call__(self, error: Tensor, h: Tensor, /) -> Tensor:
        """Returns error * f'(z), with h = f(z)."""


class Change(Protocol):
    """By how much an activation changes."""

    def __call__(self, z: Tensor, h: Tensor, delta: Tensor, /) -> Tensor:
        """Returns f(z + delta) - f(z), with h = f(z)."""


class Activation(NamedTuple):
    """A function f of pre-activations z, h = f(z). All tensors have the same shape.

    Attributes:
        value: f(z).
        back: error * f'(z), computed from the error and h.
        change: f(z + delta) - f(z), computed from z, h and delta.
    """

    value: Value
    back: Back
    change: Change


def tanh_backward(error: Tensor, t: Tensor) -> Tensor:
    """Returns error * (1 - t^2)."""
    product: Tensor = torch.ops.aten.tanh_backward(error, t)
    return product


def tanh_change(t: Tensor, delta: Tensor) -> Tensor:
    """Returns tanh(z + delta) - tanh(z) = tau (1 - t^2) / (1 + t tau), with t = tanh z and tau = tanh delta.

    The result is exact to rounding however small delta is. Where delta takes a saturated unit far back, its relative
    error in float32 is 6e-8 / (1 + t tau).
    """
    tau = tanh(delta)
    # Where t is 1 and delta is far below zero, numerator and denominator are both zero: t no longer tells z. The unit
    # then counts as unchanged.
    below = torch.addcmul(torch.ones_like(t), t, tau).add_(1e-30)
    return (tau * ((1 - t) * (1 + t))).div_(below)


def tanh(z: Tensor) -> Tensor:
    """Returns the hyperbolic tangent.

    Where PyTorch's own is slow, e / (e + 2) with e = exp(2 z) - 1 gives the same to rounding, in half of the time.
    """
    if z.is_cuda or not mkl_is_held_back():
        return z.tanh()
    e = (2 * z).clamp(max=80).expm1_()  # above 80, tanh is 1 and e does not fit into a float32
    return e / (e + 2)


ACTIVATIONS = {
    "relu": Activation(
        torch.relu,
        lambda error, h: torch.ops.aten.threshold_backward(error, h, 0),
        lambda z, h, delta: (z + delta).relu() - h,
    ),
    "tanh": Activation(tanh, tanh_backward, lambda z, h, delta: tanh_change(h, delta)),
    "linear": Activation(lambda z: z, lambda error, h: error, lambda z, h, delta: delta),
}


#: Side of a convolution's square, in pixels.
KERNEL = 5


def network_of(
    n_inputs: int,
    hidden: Sequence[int],
    n_classes: int,
    activation: str,
    convolutions: Sequence[int] = (),
    image_shape: tuple[int, int, int] | None = None,
) -> "Network":
    """Returns the network with these hidden widths, which come after the convolutions if there are any.

    Raises UserError for convolutions without an image shape that fits.
    """
    if not convolutions:
        return Network((n_inputs, *hidden, n_classes), activation)
    if image_shape is None or math.prod(image_shape) != n_inputs:
        raise UserError("convolutions need images with channels, height and width; take `convolutions` away")
    front = Network((n_inputs,), activation, tuple(convolutions), image_shape)
    widths = [math.prod(front.shape(layer)) for layer in range(1, len(convolutions) + 1)]
    return replace(front, widths=(n_inputs, *widths, *hidden, n_classes))


@dataclass(frozen=True)
class Network:
    """Widths from the input to the logits, and the activation of the hidden layers.

    Attributes:
        widths: n_0, n_1, ..., n_L. For a convolutional layer the width counts all units after pooling.
        convolutions: output channels of the leading layers, which convolve 5x5 pixels, apply the activation and take
            the maximum of 3x3 units in steps of 2 (Meulemans et al., 2020, Table 3).
        image_shape: (C, H, W) of the input, where there are convolutions.
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    convolutions: tuple[int, ...] = ()
    image_shape: tuple[int, int, int] = (0, 0, 0)

    @property
    def n_layers(self) -> int:
        """Number of weight matrices."""
        return len(self.widths) - 1

    def shape(self, layer: int) -> tuple[int, int, int]:
        """Returns (C, H, W) of the output of a convolutional layer 1, 2, ...; for layer 0 that of the images."""
        channels, height, width = self.image_shape
        for size in self.convolutions[:layer]:
            channels, height, width = size, (height + 1) // 2, (width + 1) // 2
        return channels, height, width

    def weight_shapes(self) -> dict[int, tuple[int, ...]]:
        """Returns the shape of each layer's weight: (n_out, n_in), or (n_out, n_in, 5, 5) for channels of a
        convolution."""
        dense = range(len(self.convolutions) + 1, self.n_layers + 1)
        convolving: dict[int, tuple[int, ...]] = {
            layer: (channels, self.shape(layer - 1)[0], KERNEL, KERNEL)
            for layer, channels in enumerate(self.convolutions, 1)
        }
        return convolving | {layer: (self.widths[layer], self.widths[layer - 1]) for layer in dense}

    @property
    def activate(self) -> Activation:
        """The hidden layers' activation."""
        return ACTIVATIONS[self.activation]


class Pass(NamedTuple):
    """The activity of a network in a forward pass.

    Attributes:
        inputs: inputs of each layer: the images (B, n_0), then hidden activations (B, n_l), after dropout.
        pre: pre-activations (B, n_l) of each layer; the last are the logits. Those of a convolutional layer are (B, C,
            H, W), before pooling.
        hidden: activations (B, n_l) of each hidden layer, after pooling and before dropout.
    """

    inputs: list[Tensor]
    pre: list[Tensor]
    hidden: list[Tensor]

    @property
    def logits(self) -> Tensor:
        """Outputs (B, n_L) of the last layer."""
        return self.pre[-1]


def forward(
    network: Network,
    parameters: Parameters,
    images: Tensor,
    masks: tuple[Tensor, ...] = (),
    first: Tensor | None = None,
) -> Pass:
    """Computes z_l = W_l h_{l-1} + b_l and h_l = f(z_l). If there are masks (B, n_l), each hidden h_l is multiplied by
    its mask.

    Args:
        first: z_1 (B, n_1), where it is known already.
    """
    inputs, pre, hidden = [images], [], []
    for layer in range(1, network.n_layers + 1):
        if layer == 1 and first is not None:
            pre.append(first)
        elif layer <= len(network.convolutions):
            pre.append(convolved(network, layer, inputs[-1], parameters[f"weight{layer}"], parameters[f"bias{layer}"]))
        else:
            pre.append(inputs[-1] @ parameters[f"weight{layer}"].T + parameters[f"bias{layer}"])
        if layer < network.n_layers:
            value = network.activate.value(pre[-1])
            hidden.append(pooled(value) if layer <= len(network.convolutions) else value)
            inputs.append(hidden[-1] * masks[layer - 1] if masks else hidden[-1])
    return Pass(inputs, pre, hidden)


def convolved(network: Network, layer: int, below: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns a convolutional layer's pre-activations (B, C, H, W) for its input (B, n)."""
    return functional.conv2d(below.unflatten(1, network.shape(layer - 1)), weight, bias, padding=KERNEL // 2)


def pooled(values: Tensor) -> Tensor:
    """Returns the maxima of 3x3 units, in steps of 2, as vectors (B, n)."""
    return functional.max_pool2d(values, 3, 2, 1).flatten(1)


def initial_parameters(network: Network, kind: str, generator: torch.Generator, *, biases: bool = True) -> Parameters:
    """Draws the parameters of one network, float64 on the CPU.

    Weights by `kind`:
        "he_uniform": U(+-sqrt(6 / n_in)) (He et al., 2015).
        "default": U(+-1 / sqrt(n_in)), as torch.nn.Linear draws them.
        "gaussian": N(0, 1 / n_in).
        "xavier_normal": N(0, 2 / (n_in + n_out)) (Glorot and Bengio, 2010), with biases of zero.

    With the other kinds biases are drawn as torch.nn.Linear draws them; without `biases` they are zero.
    Raises UserError for another kind.
    """
    if kind not in ("he_uniform", "default", "gaussian", "xavier_normal"):
        raise UserError(f"unknown initialisation {kind!r}; choose from: he_uniform, default, gaussian, xavier_normal")
    parameters = {}
    for layer, shape in network.weight_shapes().items():
        field = math.prod(shape[2:])
        n_out, n_in = shape[0] * field, shape[1] * field
        bound = math.sqrt(6 / n_in) if kind == "he_uniform" else 1 / math.sqrt(n_in)
        if kind in ("gaussian", "xavier_normal"):
            deviation = math.sqrt(1 / n_in if kind == "gaussian" else 2 / (n_in + n_out))
            weight = torch.randn(shape, generator=generator, dtype=torch.float64) * deviation
        else:
            weight = uniform(shape, bound, generator)
        parameters[f"weight{layer}"] = weight
        parameters[f"bias{layer}"] = uniform(shape[:1], 1 / math.sqrt(n_in), generator) * (
            biases and kind != "xavier_normal"
        )
    return parameters


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """Draws U(-bound, bound) in float64 on the CPU, so that a network starts alike in either precision and on any
    device."""
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
