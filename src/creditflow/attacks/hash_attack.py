"""What an attack on hash codes is, what problem it gets, and what such attacks share."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from creditflow.compute import randomness
from creditflow.retrieval.codes import hash_codes

#: Sharpness alpha of tanh(alpha f) for each tenth of the iterations, as in the reference implementations, which run
#: 2,000.
_SHARPNESS = (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


class HashLoss(Protocol):
    """What an attack on hash codes descends."""

    def __call__(self, outputs: Tensor, images: Tensor, /) -> Tensor:
        """Returns the loss (N,) of outputs (N, K) at images (N, C, H, W)."""


@dataclass(frozen=True)
class HashProblem:
    """One batch of queries to attack without a target: their codes are to move away from where they are.

    Attributes:
        model: in eval mode, from images in [0, 1] to outputs f (N, K); its parameters require no gradient.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int64 (N,), or zeros and ones (N, C).
        train_codes, train_labels: codes int8 (M, K) and labels of the training images, for attacks that know them.
        names: (seed, number of the image), from which the random numbers of each image follow.
        zero_gradients: for each gradient that was computed, the share of images for which it was exactly zero although
            a bit of the code was still to flip.
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
        """Noise (N, C, H, W), uniform in [-1, 1]; an image's noise does not depend on its batch."""
        shape = self.images.shape[1:]
        drawn = [torch.rand(shape, generator=randomness.generator("hash attack", *names)) for names in self.names]
        return (2 * torch.stack(drawn) - 1).to(self.images.device)

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

    def gradient_of(self, loss: HashLoss, x: Tensor, start: Tensor | None = None) -> Tensor:
        """Returns the gradient (N, C, H, W) of each image's loss at images x (N, C, H, W).

        `start` (N, K) are the codes that the attack leads away from, by default those of the queries. Attacks leave
        flipped bits alone, so that the gradient is rightly zero once all bits have flipped.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            outputs = self.model(x)
            # A sum, not a mean: what happens to an image must not depend on how many others are in its batch.
            (gradient,) = torch.autograd.grad(loss(outputs, x).sum(), x)
        unfinished = (outputs.detach() * (self.codes if start is None else start) >= 0).any(1)
        self.zero_gradients.append(((gradient.flatten(1) == 0).all(1) & unfinished).double().mean())
        return gradient


class HashPropose(Protocol):
    """The method of an attack on hash codes."""

    def __call__(self, problem: HashProblem, epsilon: float, settings: Any, /) -> Tensor:
        """Returns images (N, C, H, W) within epsilon of the originals; `settings` is the attack's `Settings`."""


@dataclass(frozen=True)
class HashAttack:
    """An attack on hash codes. It proposes perturbed images for each epsilon, whose codes are judged elsewhere.

    Attributes:
        norm: the norm that bounds the perturbation.
        propose: makes the perturbed images.
        uses_gradient: whether the attacker differentiates the model.
        aims_at_class: whether it leads away from the code of the query's classes, not from the query's own code.
        name: id of the attack, which is the name of its file; `get_hash_attack` fills it in.
    """

    norm: Literal["linf"]
    propose: HashPropose
    uses_gradient: bool
    aims_at_class: bool = False
    name: str = ""


def sharpness(iteration: int, iterations: int) -> float:
    """Returns the sharpness alpha of iteration 0, 1, ..., iterations - 1."""
    return _SHARPNESS[min(len(_SHARPNESS) * iteration // iterations, len(_SHARPNESS) - 1)]


def project(x: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Returns x brought back into the L-infinity ball around the images, and into [0, 1]."""
    return torch.clamp(torch.clamp(x, images - epsilon, images + epsilon), 0, 1)
