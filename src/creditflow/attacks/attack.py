"""What an attack is: it proposes perturbed images; whether they fool the model is judged elsewhere, in one place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from creditflow.data.labels import cross_entropies
from creditflow.data.prepared import Subset

#: L-infinity and L2 over all pixels of an image; L0 counts the positions (rows, columns) that changed in any channel.
Norm = Literal["linf", "l2", "l0"]


@dataclass(frozen=True)
class Pool:
    """Further images, and what the model says of them, int64 (M,)."""

    data: Subset
    predictions: Tensor


@dataclass(frozen=True)
class Problem:
    """One batch to attack.

    Attributes:
        model: in eval mode, images in [0, 1] to logits; its parameters require no gradient.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int64 (N,), or uint8 zeros and ones (N, K).
        pool: where a decision-based attack may start.
        surrogate: another model of the same task, for attacks that transfer from it.
        views: n -> n views of the model, whose backward draws the rule's random feedback weights anew; the model itself
            where nothing is drawn. All views compute the same outputs.
        loss: (logits, labels) -> the loss (N,) that the attack ascends.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    pool: Pool | None = None
    surrogate: nn.Module | None = None
    views: Callable[[int], Sequence[nn.Module]] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropies

    @cached_property
    def logits(self) -> Tensor:
        """The model's outputs (N, K) at the images; computed once, so that no attack asks for them again."""
        with torch.no_grad():
            outputs: Tensor = self.model(self.images)
        return outputs

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return self.logits.shape[1]

    @cached_property
    def loss_and_gradient(self) -> tuple[Tensor, Tensor]:
        """The loss (N,) of the true labels at the images, and its gradient (N, C, H, W); computed once."""
        return self._differentiated(self.images)

    def gradient_at(self, images: Tensor) -> Tensor:
        """Returns the loss's gradient (N, C, H, W) at other images of the same labels."""
        return self._differentiated(images)[1]

    def _differentiated(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.detach().clone().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(self.model(x), self.labels)
            (gradient,) = torch.autograd.grad(loss.sum(), x)
        return loss.detach(), gradient


@dataclass(frozen=True)
class Candidates:
    """What an attack proposes for one batch.

    Attributes:
        images: one tensor (N, C, H, W) per epsilon, within epsilon of the originals.
        distance: (N,) smallest perturbation found, for attacks that look for it; inf where none was found.
        failed: number of images the attack could not start on; they are proposed unchanged.
        lowest: least value of a pixel that they may have; below 0 only where an attack regenerates numbers that were made so.
    """

    images: Sequence[Tensor]
    distance: Tensor | None = None
    failed: int = 0
    lowest: float = 0.0


@dataclass(frozen=True)
class Attack:
    """An attack method.

    Attributes:
        norm: of the perturbation, over all pixels of an image.
        uses_gradient: whether the attacker differentiates the model, and so has to be told through which weights.
        settings: dataclass of its parameters.
        propose: (problem, epsilons, settings) -> candidates.
        uses_surrogate: whether it needs `problem.surrogate`.
        uses_pool: whether it needs `problem.pool`.
        multi_label: whether it can attack images of several labels, where it has to leave all of them.
        loss: what it ascends; guards look at this loss's gradient. None if it has none that says something at the image itself.
    """

    norm: Norm
    uses_gradient: bool
    settings: type[Any]
    propose: Callable[[Problem, Sequence[float], Any], Candidates]
    uses_surrogate: bool = False
    uses_pool: bool = False
    multi_label: bool = False
    loss: Callable[[Tensor, Tensor], Tensor] | None = cross_entropies
