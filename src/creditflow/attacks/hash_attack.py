"""What an attack on hash codes is, what its problem is, and the surrogates of a code that such attacks share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from creditflow.compute import randomness
from creditflow.retrieval.codes import hash_codes

#: Sharpness alpha of tanh(alpha f), by tenths of the iterations: as in the reference implementations, made for 2,000 of them.
_SHARPNESS = (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class HashProblem:
    """One batch of queries to attack; non-targeted: their codes are to leave where they are.

    Attributes:
        model: in eval mode, images in [0, 1] to outputs f (N, K); its parameters require no gradient.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int64 (N,), or zeros and ones (N, C).
        train_codes, train_labels: codes int8 (M, K) of the training images and their labels, for attacks that know them.
        names: (seed, number of the image), from which each image's random numbers follow.
        zero_gradients: for each gradient that was taken, the share of images for which it was exactly zero.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    train_codes: Tensor
    train_labels: Tensor
    names: tuple[tuple[int, int], ...]
    zero_gradients: list[Tensor] = field(default_factory=list)

    @cached_property
    def noise(self) -> Tensor:
        """Uniform in [-1, 1], (N, C, H, W): an image's own, whatever batch it is in."""
        one = self.images[0]
        drawn = [torch.rand(one.shape, generator=randomness.generator("hash attack", *names)) for names in self.names]
        return (2 * torch.stack(drawn) - 1).to(one.device)

    @cached_property
    def outputs(self) -> Tensor:
        """The model's outputs (N, K) at the images."""
        with torch.no_grad():
            outputs: Tensor = self.model(self.images)
        return outputs

    @cached_property
    def codes(self) -> Tensor:
        """The codes of the images, as floats (N, K)."""
        return hash_codes(self.outputs).to(self.outputs.dtype)

    @cached_property
    def relevant(self) -> Tensor:
        """Whether training images share a label with queries: floats (N, M)."""
        if self.labels.dim() == 1:
            shared = self.labels[:, None] == self.train_labels[None, :]
        else:
            shared = (self.labels.float() @ self.train_labels.float().T) > 0
        return shared.to(self.outputs.dtype)

    def gradient_of(self, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
        """Returns the gradient (N, C, H, W) of a loss of (outputs (N, K), images) at images x, each image's its own."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            # A sum, not a mean: what happens to an image must not depend on how many others are in its batch.
            (gradient,) = torch.autograd.grad(loss(self.model(x), x).sum(), x)
        self.zero_gradients.append((gradient.flatten(1) == 0).all(1).double().mean())
        return gradient


@dataclass(frozen=True)
class HashAttack:
    """An attack on hash codes; it proposes perturbed images for each epsilon, whose codes are judged elsewhere.

    Attributes:
        norm: of the perturbation.
        settings: dataclass of its parameters.
        propose: (problem, epsilon, settings) -> images (N, C, H, W) within epsilon of the originals.
        uses_gradient: whether the attacker differentiates the model.
    """

    norm: Literal["linf"]
    settings: type[Any]
    propose: Callable[[HashProblem, float, Any], Tensor]
    uses_gradient: bool


def sharpness(iteration: int, iterations: int) -> float:
    """Returns alpha for an iteration 0, 1, ... of so many."""
    return _SHARPNESS[min(len(_SHARPNESS) * iteration // iterations, len(_SHARPNESS) - 1)]


def project(x: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Returns x brought back into the L-infinity ball around the images, and into [0, 1]."""
    return torch.clamp(torch.clamp(x, images - epsilon, images + epsilon), 0, 1)
