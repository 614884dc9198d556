"""What an attack is: it proposes perturbed images. Whether they fool the model is judged elsewhere, in one place."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from creditflow.data.labels import cross_entropies
from creditflow.data.prepared import Subset

#: L-infinity and L2 over all pixels of an image; L0 counts the positions (rows, columns) that changed in any channel.
Norm = Literal["linf", "l2", "l0"]


class Loss(Protocol):
    """What an attack ascends."""

    def __call__(self, logits: Tensor, labels: Tensor, /) -> Tensor:
        """Returns the loss (N,) of logits (N, K), for labels int64 (N,) or uint8 zeros and ones (N, K)."""


class Views(Protocol):
    """Makes views of a model: all compute the same outputs, and each draws the rule's random feedback weights anew."""

    def __call__(self, n: int, /) -> Sequence[nn.Module]:
        """Returns n views."""


@dataclass(frozen=True)
class Pool:
    """Further images, and the classes int64 (M,) that the model predicts for them."""

    data: Subset
    predictions: Tensor


@dataclass(frozen=True)
class Problem:
    """One batch to attack.

    Attributes:
        model: in eval mode, from images in [0, 1] to logits; its parameters require no gradient.
        images: float32 (N, C, H, W) in [0, 1]; float64 for a model in float64, see `precision.in_float64`.
        labels: int64 (N,), or uint8 zeros and ones (N, K).
        pool: images from which a decision-based attack may start.
        surrogates: other models of the same task by name ("twin", "other_seed"), for attacks that transfer from them.
        views: views of the model with other draws of its feedback weights; None where nothing is drawn.
        loss: the loss that the attack ascends.
        on_begin: is called where an attack begins anew, such as at another epsilon; see `begin`.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    pool: Pool | None = None
    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)
    views: Views | None = None
    loss: Loss = cross_entropies
    on_begin: Callable[[], None] | None = None

    @cached_property
    def logits(self) -> Tensor:
        """The model's outputs (N, K) at the images; computed once, so that no attack asks for them again."""
        with torch.no_grad():
            outputs: Tensor = self.model(self.images)
        return outputs

    def begin(self) -> None:
        """Says that an attack begins anew: at another epsilon, or as another stage of a cascade."""
        if self.on_begin is not None:
            self.on_begin()

    def part(self, chosen: Tensor, **changes: Any) -> "Problem":
        """Returns the problem of some of the images, int64 (M,), which has their outputs already.

        The `changes` are other attributes; the model stays.
        """
        part = replace(self, images=self.images[chosen], labels=self.labels[chosen], **changes)
        part.__dict__["logits"] = self.logits[chosen]
        return part

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
            gradient = gradient_of(loss.sum(), x)
        return loss.detach(), gradient


def gradient_of(value: Tensor, images: Tensor) -> Tensor:
    """Returns the gradient of a number with respect to images; zeros if the number does not depend on them."""
    if not value.requires_grad:
        return torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(value, images, allow_unused=True, materialize_grads=True)
    return gradient


@dataclass(frozen=True)
class Stage:
    """A stage of an attack that runs several attacks after one another.

    Attributes:
        number: its number, from 1, in `Candidates.fooled_by`.
        uses_gradient: as for an attack of its own.
        scale_free: likewise.
        signs: what its gradient at the images showed, tensors (N,) by name (see `guards.observe_gradient`); None for a
            stage without a loss whose gradient says something.
    """

    number: int
    uses_gradient: bool
    scale_free: bool
    signs: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Candidates:
    """What an attack proposes for one batch.

    Attributes:
        images: one tensor (N, C, H, W) per epsilon, within epsilon of the originals.
        distance: size (N,) of the smallest perturbation found, for attacks that look for it; inf where none was found.
        failed: number of images that the attack could not start on; they are proposed unchanged.
        fooled_by: uint8 (K, N), for an attack of several stages: the number, from 1, of the stage that fooled the model
            at an epsilon; 0 where none did.
        stages: the stages that ran, by name, in their order.
        lowest: least value that a pixel may have; below 0 only for attacks that regenerate numbers made so.
    """

    images: Sequence[Tensor]
    distance: Tensor | None = None
    failed: int = 0
    fooled_by: Tensor | None = None
    stages: Mapping[str, Stage] = field(default_factory=dict)
    lowest: float = 0.0


class Propose(Protocol):
    """The method of an attack."""

    def __call__(self, problem: Problem, epsilons: Sequence[float], settings: Any, /) -> Candidates:
        """Returns perturbed images for each epsilon; `settings` is the `Settings` of the attack's settings file."""


class Differentiated(Protocol):
    """Says on what an attack computes its gradients."""

    def __call__(self, problem: Problem, settings: Any, /) -> AbstractContextManager[Problem]:
        """Returns a context in which the problem is as the attack differentiates it."""


def _as_it_is(problem: Problem, settings: Any, /) -> AbstractContextManager[Problem]:
    return nullcontext(problem)


@dataclass(frozen=True)
class Attack:
    """An attack method.

    Attributes:
        norm: the norm that bounds the perturbation, over all pixels of an image.
        uses_gradient: whether the attacker differentiates the model, and so has to be told through which weights.
        propose: makes the candidates.
        uses_surrogate: whether it needs `problem.surrogates`; of a cascade, whether it may need them.
        uses_pool: whether it needs `problem.pool`.
        multi_label: whether it can attack images of several labels; it then has to leave all of them.
        loss: what it ascends; guards look at the gradient of this loss. None if the attack has no loss whose gradient
            at the image itself says something.
        scale_free: whether it follows the model's gradient and no scale of the logits can hide this gradient from it.
        converges: whether it ascends with steps that adapt, so that twice the steps show whether it has converged. Its
            settings then have a method `doubled`.
        differentiated: the problem as the attack differentiates it; guards look at the gradient of this one.
        name: id of the attack, which is the name of its file; `get_attack` fills it in.
    """

    norm: Norm
    uses_gradient: bool
    propose: Propose
    uses_surrogate: bool = False
    uses_pool: bool = False
    multi_label: bool = False
    loss: Loss | None = cross_entropies
    scale_free: bool = False
    converges: bool = False
    differentiated: Differentiated = _as_it_is
    name: str = ""


def perturbation_size(delta: Tensor, norm: Norm) -> Tensor:
    """Returns the norm (N,) of perturbations (N, C, H, W), over all entries of each; L0 counts changed positions."""
    if norm == "l0":
        return (delta != 0).any(1).flatten(1).sum(1).to(delta.dtype)
    size: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=float("inf") if norm == "linf" else 2, dim=1)
    return size
