"""Adversarial images for adversarial training and for validation.

FGSM and PGD follow the gradient through the forward weights, for all networks of a population at once.
"""

from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from creditflow.populations.adversary_settings import AdversarySettings
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network, Parameters, forward


def input_gradient(
    network: Network, loss: str, parameters: Parameters, images: Tensor, targets: Tensor, *, float64_loss: bool = False
) -> Tensor:
    """Returns the gradient (B, n_0) of each example's loss by its image, for one network without dropout.

    With `float64_loss`, each example's gradient has a scale of its own (see `AdversarySettings`).
    """
    activity = forward(network, parameters, images)
    if float64_loss:
        wide = LOSSES[loss].slope(activity.logits.double(), targets.double())
        largest = wide.abs().amax(-1, keepdim=True)
        error = torch.where(largest > 0, wide / largest, wide).to(activity.logits.dtype)
    else:
        error = LOSSES[loss].slope(activity.logits, targets)
    for layer in range(network.n_layers, 0, -1):
        error = error @ parameters[f"weight{layer}"]
        if layer > 1:
            error = network.activate.back(error, activity.hidden[layer - 2])
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
        parameters: those of P networks, with a leading dimension P.
        images, targets: (P, B, n_0) and (P, B, C), or (B, n_0) and (B, C) if all networks get the same.
        start: uniform numbers in [0, 1) of the images' shape; needed for a random start.
    """
    shared = None if images.dim() == 2 else 0
    of_one = partial(input_gradient, network, settings.loss, float64_loss=settings.float64_loss)
    gradient = vmap(of_one, in_dims=(0, 0, shared))
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
