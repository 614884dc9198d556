"""What is measured of a population after each epoch."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from creditflow.compute import randomness
from creditflow.core.settings import NoSettings
from creditflow.populations.adversaries import adversarial_images
from creditflow.populations.adversary_settings import AdversarySettings
from creditflow.populations.images import FlatImages, is_right
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules import bp, gnt
from creditflow.populations.rules.settings.gnt import Settings as GaussNewtonSettings

#: Images that are measured at once: enough for large matrix products, and few enough for memory.
MEASURED = 1000


@torch.no_grad()
def accuracies(network: Network, parameters: Parameters, data: FlatImages, dtype: torch.dtype) -> Tensor:
    """Returns the natural accuracy (P,) of each network; NaN for one that gives an output that is not finite."""
    logits_of = vmap(lambda member, images: forward(network, member, images).logits, in_dims=(0, None))
    correct = torch.zeros(len(parameters["weight1"]), dtype=torch.int64, device=data.labels.device)
    broken = torch.zeros_like(correct, dtype=torch.bool)
    for chosen in torch.arange(len(data), device=data.labels.device).split(MEASURED):
        images, targets = data.batch(chosen, dtype)
        logits = logits_of(parameters, images)
        correct += is_right(logits, targets.expand(logits.shape)).sum(1)
        broken |= _broken(logits)
    return (correct.double() / len(data)).masked_fill(broken, torch.nan)


def _broken(logits: Tensor) -> Tensor:
    """Returns bool (P,): whether a network has an output (P, B, C) that is not finite. Its largest one says nothing."""
    return ~logits.isfinite().flatten(1).all(1)


def robust_accuracies(
    network: Network,
    parameters: Parameters,
    data: FlatImages,
    n_images: int,
    adversary: AdversarySettings,
    dtype: torch.dtype,
) -> Tensor:
    """Returns the accuracy (P,) of each network on adversarial versions of the first `n_images` images.

    It is NaN for a network that gives an output there that is not finite.
    """
    device = data.labels.device
    images, targets = data.batch(torch.arange(min(n_images, len(data)), device=device), dtype)
    # The same start for every member and epoch: scores differ by the networks alone.
    start = torch.rand(images.shape, generator=randomness.generator("validation adversary"), dtype=torch.float64).to(
        images
    )
    attacked = adversarial_images(network, adversary, parameters, images, targets, start)
    logits = vmap(lambda member, images: forward(network, member, images).logits)(parameters, attacked)
    return is_right(logits, targets.expand(logits.shape)).double().mean(1).masked_fill(_broken(logits), torch.nan)


def update_angles(network: Network, loss: Loss, parameters: Parameters, directions: Parameters, batch: Batch) -> Tensor:
    """Returns the angle (P,), in degrees, between a rule's directions and the loss gradient.

    Both are taken over all weights below the output layer.
    """
    exact = _directions(bp.RULE, network, loss, NoSettings(), parameters, batch)
    below = [f"weight{layer}" for layer in range(1, network.n_layers)]
    proposed, gradient = (torch.cat([values[name].flatten(1) for name in below], 1) for values in (directions, exact))
    return _angle(proposed, gradient)


def layer_angles(
    network: Network,
    loss: Loss,
    parameters: Parameters,
    directions: Parameters,
    batch: Batch,
    dampings: Sequence[float],
) -> dict[str, Tensor]:
    """Returns the angles (P,), in degrees, of the directions of each weight below the output.

    Those called `angle_bp_...` are measured to the loss gradient, those called `angle_gnt_...` to the update by
    Gauss-Newton targets with each of the dampings.
    """
    references = {"angle_bp_layer{}": _directions(bp.RULE, network, loss, NoSettings(), parameters, batch)}
    for damping in dampings:
        settings = GaussNewtonSettings(damping=damping)
        references[f"angle_gnt_layer{{}}_damping{damping:g}"] = _directions(
            gnt.RULE, network, loss, settings, parameters, batch
        )
    return {
        title.format(layer): _angle(directions[f"weight{layer}"].flatten(1), reference[f"weight{layer}"].flatten(1))
        for title, reference in references.items()
        for layer in range(1, network.n_layers)
    }


def _directions(
    rule: UpdateRule, network: Network, loss: Loss, settings: Any, parameters: Parameters, batch: Batch
) -> Parameters:
    step = vmap(partial(rule.step, network, loss, settings))
    directions: Parameters = step(parameters, {}, batch._replace(noise=())).directions
    return directions


def _angle(a: Tensor, b: Tensor) -> Tensor:
    return torch.rad2deg(torch.arccos(torch.cosine_similarity(a.double(), b.double()).clamp(-1, 1)))
