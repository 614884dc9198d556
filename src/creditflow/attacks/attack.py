"""What an attack is: it proposes perturbed images; whether they fool the model is judged elsewhere, in one place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Pool:
    """Further images float32 (M, C, H, W), and what the model says of them, int64 (M,)."""

    images: Tensor
    predictions: Tensor


@dataclass(frozen=True)
class Problem:
    """One batch to attack.

    Attributes:
        model: in eval mode, images in [0, 1] to logits; its parameters require no gradient.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        pool: where a decision-based attack may start; None for attacks that use the gradient.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    pool: Pool | None = None


@dataclass(frozen=True)
class Candidates:
    """What an attack proposes for one batch.

    Attributes:
        images: one tensor (N, C, H, W) per epsilon, within epsilon of the originals.
        distance: (N,) smallest perturbation found, for attacks that look for it; inf where none was found.
        failed: number of images the attack could not start on; they are proposed unchanged.
    """

    images: Sequence[Tensor]
    distance: Tensor | None = None
    failed: int = 0


@dataclass(frozen=True)
class Attack:
    """An attack method.

    Attributes:
        norm: of the perturbation, over all pixels of an image.
        uses_gradient: whether the attacker differentiates the model, and so has to be told through which weights.
        settings: dataclass of its parameters.
        propose: (problem, epsilons, settings) -> candidates.
    """

    norm: Norm
    uses_gradient: bool
    settings: type[Any]
    propose: Callable[[Problem, Sequence[float], Any], Candidates]
