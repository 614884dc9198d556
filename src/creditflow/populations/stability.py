"""How near a population's networks are to a softmax that hides their gradients, epoch by epoch."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from creditflow.populations.adversaries import input_gradient
from creditflow.populations.images import FlatImages
from creditflow.populations.measuring import MEASURED
from creditflow.populations.network import Network, Parameters, forward
from creditflow.populations.rule import UpdateRule
from creditflow.populations.settings import PopulationSettings


class Stability:
    """What `stability_images` of a population's settings asks for. Nothing of it influences training.

    The numbers (P,) of an epoch are

    - `loop_growth`, for rules with a `loop`: its norm over that at the start;
    - `median_gap`: the median over images of the difference of the two largest logits;
    - `zero_gradients_float32` and `zero_gradients_float64`: the share of images at which the gradient of the
      adversary's loss with respect to the image is exactly zero in all pixels, computed in either precision.
    """

    def __init__(
        self, rule: UpdateRule, rule_settings: Any, network: Network, settings: PopulationSettings, test: FlatImages
    ) -> None:
        self.network, self.adversary = network, settings.adversary
        n_images = min(settings.stability_images, len(test))
        self.images = test.part(torch.arange(n_images, device=test.labels.device))
        self.loop = vmap(partial(rule.loop, network, rule_settings)) if rule.loop is not None and n_images else None
        self.start: dict[str, Tensor] = {}

    def begin(self, parameters: Parameters, feedback: Parameters) -> None:
        """Notes where the networks begin, from parameters and feedback state (P, ...)."""
        if self.loop is not None:
            self.start = self.loop(parameters, feedback)

    @torch.no_grad()
    def measured(self, parameters: Parameters, feedback: Parameters) -> dict[str, Tensor]:
        """Returns the numbers of networks with these parameters and feedback state (P, ...); nothing without images."""
        if not len(self.images):
            return {}
        gaps = self._in_batches(lambda member, images, targets: _gaps(self.network, member, images), parameters)
        rows = self._growth(parameters, feedback) | {"median_gap": gaps.median(1).values}
        assert self.adversary is not None
        is_zero = partial(_is_zero, self.network, self.adversary.loss)
        for name in ("float32", "float64"):
            dtype = getattr(torch, name)
            cast = {key: value.to(dtype) for key, value in parameters.items()}
            rows[f"zero_gradients_{name}"] = self._in_batches(is_zero, cast).double().mean(1)
        return rows

    def _growth(self, parameters: Parameters, feedback: Parameters) -> dict[str, Tensor]:
        """Returns each number of the loop over its start; 1 where both are zero."""
        if self.loop is None:
            return {}
        return {
            name: torch.where(value == self.start[name], 1.0, value / self.start[name])
            for name, value in self.loop(parameters, feedback).items()
        }

    def _in_batches(self, function: Any, parameters: Parameters) -> Tensor:
        """Returns numbers (P, N) of a function of one network's parameters, images and targets."""
        mapped = vmap(function, in_dims=(0, None, None))
        places = torch.arange(len(self.images), device=self.images.labels.device)
        dtype = parameters["weight1"].dtype
        return torch.cat([mapped(parameters, *self.images.batch(part, dtype)) for part in places.split(MEASURED)], 1)


def _gaps(network: Network, parameters: Parameters, images: Tensor) -> Tensor:
    """Returns by how much the largest logit exceeds the second (B,), in float64."""
    first, second = forward(network, parameters, images).logits.double().topk(2, dim=1).values.unbind(1)
    return first - second


def _is_zero(network: Network, loss: str, parameters: Parameters, images: Tensor, targets: Tensor) -> Tensor:
    """Returns whether (B,) the loss does not move, to the last bit, with any pixel of an image."""
    return (input_gradient(network, loss, parameters, images, targets) == 0).all(1)
