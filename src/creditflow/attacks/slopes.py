"""Whether differences of a model's outputs agree with a gradient that an attack follows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Norm
from creditflow.attacks.precision import types_of, weights_in_float64

#: Sizes of the moves of a pixel, in the order in which they are tried. Small moves cross few kinks of a network, and
#: large ones are rounded less.
_STEPS = (1e-5, 1e-4, 1e-6, 1e-3)

#: A difference confirms a gradient if they differ by at most this share of the gradient's norm.
_TOLERANCE = 0.25

#: The same for a gradient that was computed with few digits.
_COARSE_TOLERANCE = 0.6

#: The error of an output, in units of rounding: each output is the end of many sums.
_ROUNDINGS = 32

#: Outputs at the same images with and without a graph are the same if they differ by at most this share of their norm.
_SAME_OUTPUTS = 1e-2

#: The same for the outputs of a model that computes with few digits, and those of this model in float64.
_SIMILAR_OUTPUTS = 0.1

#: Types of numbers with few digits.
_FEW_DIGITS = (torch.float16, torch.bfloat16)

#: A gradient ought to lead uphill for these shares of epsilon.
_REACHES = (1 / 8, 1 / 3)

#: It need not do so for a larger part of the range of pixels, over which ordinary networks bend.
_LONGEST = 0.04


@dataclass(frozen=True)
class Followed:
    """What an attack follows: at images (N, C, H, W) with outputs (N, K), the gradients at the outputs and at them."""

    images: Tensor
    outputs: Tensor
    at_outputs: Tensor
    at_images: Tensor
    similar: float = _SAME_OUTPUTS
    tolerance: float = _TOLERANCE

    @property
    def few_digits(self) -> bool:
        """Whether the outputs have so few digits that small differences of them say nothing."""
        return any(torch.equal(self.outputs.to(dtype).to(self.outputs), self.outputs) for dtype in _FEW_DIGITS)

    def double(self) -> "Followed":
        """Returns the same in float64, for a model in float64."""
        limits = (_SIMILAR_OUTPUTS, _COARSE_TOLERANCE) if self.few_digits else (_SAME_OUTPUTS, _TOLERANCE)
        images, outputs = self.images.double(), self.outputs.double()
        return Followed(images, outputs, self.at_outputs.double(), self.at_images.double(), *limits)


def judged(model: nn.Module, followed: Followed, norm: Norm, epsilon: float) -> tuple[Tensor, Tensor]:
    """Returns bool (N,) each: whether the gradients of images are confirmed, and whether they mislead.

    What the digits of the outputs cannot confirm, the model in float64 may.

    Args:
        model: the model, without a graph of autograd.
        followed: what the attack follows.
        norm: the attack's norm.
        epsilon: the largest size of the perturbation.
    """
    nobody = torch.zeros(len(followed.images), dtype=torch.bool, device=followed.images.device)
    confirmed, misled = nobody, nobody
    if not followed.few_digits:
        confirmed, misled = _confirmed(model, followed, ~nobody), _misled(model, followed, norm, epsilon)
    types = types_of(model)
    if not bool(confirmed.all()) and len(types) == 1:
        precise = followed.double()
        with weights_in_float64(model, types.pop()):
            if _computes_in_float64(model, precise.images):
                confirmed = confirmed | _confirmed(model, precise, ~confirmed)
                misled = _misled(model, precise, norm, epsilon) if followed.few_digits else misled
    return confirmed, misled


def _misled(model: nn.Module, followed: Followed, norm: Norm, epsilon: float) -> Tensor:
    """Returns bool (N,): whether a gradient that is not zero leads nowhere, where the norm has steps along it.

    What rounding can do counts for the gradient.
    """
    gradient = followed.at_images
    size = gradient.flatten(1).norm(dim=1)
    length = size.clamp_min(torch.finfo(size.dtype).tiny)[:, None, None, None]
    direction = gradient.sign() if norm == "linf" else gradient / length
    misled = torch.zeros_like(size, dtype=torch.bool)
    for reach in _REACHES if norm != "l0" and epsilon > 0 else ():
        step = (min(reach * epsilon, _LONGEST) if norm == "linf" else reach * epsilon) * direction
        right, left = ((followed.images + sign * step).clamp(0, 1) for sign in (1, -1))
        risen, rounding = _change(followed.at_outputs, model(right), model(left))
        misled |= (size > 0) & (risen < -rounding)
    return misled


def _confirmed(model: nn.Module, followed: Followed, asked: Tensor) -> Tensor:
    """Returns bool (N,): whether differences confirm the gradients of the images that are asked for, bool (N,).

    Where no step can tell, because rounding is larger than what is compared, only a gradient of zero is confirmed.
    """
    centre = model(followed.images)
    gap = (centre.double() - followed.outputs.double()).norm(dim=1)
    same = ~(gap > followed.similar * followed.outputs.double().norm(dim=1))
    confirmed, denied = torch.zeros_like(same), ~same
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(centre.shape[:1] + followed.images.shape[1:], generator=generator, dtype=torch.float64)
    for step in _STEPS:
        places = (asked & same & ~confirmed).nonzero()[:, 0]
        if len(places):
            x, outputs, v, g = (of[places] for of in (followed.images, centre, followed.at_outputs, followed.at_images))
            tells, agrees = _compare(model, x, outputs, v, g, step * direction.to(x)[places], followed.tolerance)
            confirmed[places] = tells & agrees
            denied[places] |= tells & ~agrees
    harmless: Tensor = confirmed | ~(denied | (followed.at_images != 0).flatten(1).any(1))
    return harmless & asked


def _compare(
    model: nn.Module, x: Tensor, outputs: Tensor, v: Tensor, g: Tensor, move: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Compares gradients g at images x with the differences of x + move, x and x - move.

    Pixels that a move would take out of [0, 1] stay. At a kink of the network, autograd may choose a slope between
    those on both sides.

    Returns bool (N,): whether the comparison is larger than what rounding can do, and whether both agree.
    """
    inside = (x - move.abs() >= 0) & (x + move.abs() <= 1)
    right, left = x + move * inside, x - move * inside
    at_right, at_left = model(right), model(left)
    measured, rounding = _change(v, at_right, at_left)
    sides = [2 * _change(v, *ends)[0] for ends in ((at_right, outputs), (outputs, at_left))]
    taken = right.double() - left.double()  # few digits change the move itself
    promised = (g.double() * taken).flatten(1).sum(1)
    # For a random direction of n pixels, |g| |taken| / sqrt(n) is the usual size of g times taken.
    n_pixels = inside.flatten(1).sum(1).clamp(min=1)
    usual = (g.double() * inside).flatten(1).norm(dim=1) * taken.flatten(1).norm(dim=1) / n_pixels.sqrt()
    tells = rounding <= tolerance * torch.maximum(usual, measured.abs())
    low, high = torch.minimum(*sides), torch.maximum(*sides)
    distance = torch.maximum(low - promised, promised - high)
    return tells, distance <= tolerance * usual


def _change(v: Tensor, right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Returns by how much v times the outputs is larger at the right than at the left (N,), and its rounding (N,).

    A class whose output never changes, as that of a class which a model has switched off, is no part of the rounding.
    """
    eps = torch.finfo(right.dtype).eps
    at_right, at_left, v = right.double(), left.double(), v.double()
    spread = (at_right - at_right.median(1, keepdim=True).values) * (at_right != at_left)
    return (v * (at_right - at_left)).sum(1), _ROUNDINGS * eps * (v * spread).abs().sum(1)


def _computes_in_float64(model: nn.Module, images: Tensor) -> bool:
    try:
        outputs: Tensor = model(images)
    except Exception:  # whatever somebody's model raises; its gradient then stays unconfirmed
        return False
    return outputs.dtype == torch.float64
