"""Adversarial images for adversarial training and for validation: FGSM and PGD through the forward weights, for a whole population."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network, Parameters, forward


@dataclass(frozen=True)
class AdversarySettings:
    """An attack in the L-infinity ball on a loss of the network.

    Attributes:
        epsilon: radius, pixels in [0, 1].
        steps: 1 is FGSM when `step` is epsilon and the start is the image itself.
        step: size of a step, pixels.
        random_start: begin at a uniform point of the ball.
        lowest: least value of a pixel; the code of the PEPITA paper clips at -1, which lets pixels fall below black.
        loss: what it ascends, see `LOSSES`.
    """

    epsilon: float
    steps: int = 40
    step: float = 0.01
    random_start: bool = True
    lowest: float = 0.0
    loss: str = "mse_softmax"

    def __post_init__(self) -> None:
        if not (0 <= self.epsilon < math.inf and 0 < self.step < math.inf):
            raise ValueError("epsilon must be at least 0, step positive, both finite")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if not -1 <= self.lowest <= 0:
            raise ValueError("lowest must be in [-1, 0]")


def input_gradient(network: Network, loss: str, parameters: Parameters, images: Tensor, targets: Tensor) -> Tensor:
    """Returns the gradient (B, n_0) of each example's loss by its image, without dropout, for one network."""
    found = forward(network, parameters, images)
    error = LOSSES[loss].slope(found.logits, targets)
    for layer in range(network.n_layers, 0, -1):
        error = error @ parameters[f"weight{layer}"]
        if layer > 1:
            error = network.activate.back(error, found.hidden[layer - 2])
    return error


@torch.no_grad()
def adversarial_images(
    network: Network,
    settings: AdversarySettings,
    parameters: Parameters,
    images: Tensor,
    targets: Tensor,
    start: Tensor | None = None,
) -> Tensor:
    """Returns adversarial images (P, B, n_0) for a population.

    Args:
        parameters: of P networks.
        images, targets: (P, B, n_0) and (P, B, C), or (B, n_0) and (B, C) for all networks alike.
        start: uniform numbers in [0, 1), of the images' shape, for a random start.
    """
    shared = None if images.dim() == 2 else 0
    gradient = vmap(partial(input_gradient, network, settings.loss), in_dims=(0, 0, shared))
    low = (images - settings.epsilon).clamp_(min=settings.lowest)
    high = (images + settings.epsilon).clamp_(max=1)
    n_networks = len(parameters["weight1"])
    current = (images if images.dim() == 3 else images.expand(n_networks, *images.shape)).clone()
    if settings.random_start:
        assert start is not None
        current = current + (2 * start - 1) * settings.epsilon
        current = current.maximum(low).minimum(high)
    for _ in range(settings.steps):
        current.add_(gradient(parameters, current, targets).sign_(), alpha=settings.step)
        current = torch.minimum(torch.maximum(current, low, out=current), high, out=current)
    return current
