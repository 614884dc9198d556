"""Whether differences of the outputs confirm the gradients that an attack follows, checked while the attack runs.

`check_gradient` looks at some images before an attack. A model can be honest there, and lie at other images or at those
that an attack has already moved. So the products of vectors with the Jacobian that attacks ask for are compared with
differences of the outputs, at the place and for the loss that the attack itself has chosen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks.guards import QueryWatch
from creditflow.derivatives.subject import kept_randomness

#: Sizes of the moves of a pixel, in the order in which they are tried. Small moves cross few kinks of a network, and
#: large ones are rounded less.
_STEPS = (1e-4, 1e-5, 1e-3, 1e-6)

#: A difference confirms a gradient if they differ by at most this share of the gradient's norm.
_TOLERANCE = 0.25

#: The error of an output, in units of rounding: each output is the end of many sums.
_ROUNDINGS = 32

#: Outputs at the same images with and without a graph are the same if they differ by at most this share of their norm.
_SAME_OUTPUTS = 1e-2


@dataclass
class _Call:
    """One call of the model and what its backward pass gave: images, outputs, and the gradients of a number."""

    number: int
    images: Tensor
    outputs: Tensor | None = None
    at_outputs: Tensor | None = None
    at_images: Tensor | None = None

    def keep_at_outputs(self, gradient: Tensor) -> None:
        """Keeps the gradient (N, K) at the outputs, until one at the images has followed from it."""
        if self.at_images is None:
            self.at_outputs = gradient.detach().clone()

    def keep_at_images(self, gradient: Tensor) -> None:
        """Keeps the first gradient (N, C, H, W) at the images that follows from one at the outputs."""
        if self.at_images is None and self.at_outputs is not None:
            self.at_images = gradient.detach().clone()


@dataclass
class FollowedGradients:
    """Compares some gradients of each batch with differences: the 1st, 4th, 16th, 64th ... that an attack asks for.

    For a gradient g at an image x, which came from a gradient v at the outputs f(x), and for a random direction u,
    g u is compared with v (f(x + h u) - f(x - h u)) / 2h. Pixels that a step would take out of [0, 1] stay. A gradient
    is confirmed if one of the steps h agrees, and if f(x) is the same without a graph.

    Attributes:
        counter: counts the attack's queries, to which these calls do not belong.
        unconfirmed: number of images whose gradient no step has confirmed, by the number of the gradient in its batch.
    """

    counter: QueryWatch
    unconfirmed: dict[int, int] = field(default_factory=dict)
    _n_calls: int = 0
    _open: _Call | None = None
    _on: bool = False

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Checks gradients of a model in a block that attacks one batch."""
        before = model.register_forward_pre_hook(self._before)
        after = model.register_forward_hook(self._after)
        self._n_calls, self._open, self._on = 0, None, True
        try:
            yield
            self._close(model)
        finally:
            self._on = False
            before.remove()
            after.remove()

    def share(self, n_images: int) -> float:
        """Returns the largest share of the attacked images whose gradients of one number were not confirmed."""
        return max(self.unconfirmed.values(), default=0) / n_images

    def _before(self, model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self._on:
            return None
        self._close(model)
        images = inputs[0]
        if not (torch.is_grad_enabled() and images.requires_grad):
            return None
        self._n_calls += 1
        if self._n_calls not in {4**power for power in range(16)}:
            return None
        self._open = _Call(self._n_calls, images.detach().clone())
        # An attack may show the same images to several models. The gradient of the alias is that of this call alone.
        alias = images.view_as(images)
        alias.register_hook(self._open.keep_at_images)
        return (alias, *inputs[1:])

    def _after(self, model: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> None:
        if self._on and self._open is not None and self._open.outputs is None and outputs.requires_grad:
            self._open.outputs = outputs.detach().clone()
            outputs.register_hook(self._open.keep_at_outputs)

    def _close(self, model: nn.Module) -> None:
        """Compares the gradient of the last call that is to be checked, if the attack asked for it."""
        call, self._open = self._open, None
        if call is None or call.at_images is None:
            return
        self._on, n_queries = False, self.counter.n_images
        with torch.no_grad(), kept_randomness():
            n_unconfirmed = int((~_confirmed(model, call)).sum())
        self._on, self.counter.n_images = True, n_queries
        self.unconfirmed[call.number] = self.unconfirmed.get(call.number, 0) + n_unconfirmed


def _confirmed(model: nn.Module, call: _Call) -> Tensor:
    """Returns bool (N,): whether differences confirm the gradient of a call at its images.

    Where no step can tell, because rounding is larger than what is compared, nothing speaks against the gradient.
    """
    assert call.outputs is not None and call.at_outputs is not None and call.at_images is not None
    gap = (model(call.images).double() - call.outputs.double()).norm(dim=1)
    same = ~(gap > _SAME_OUTPUTS * call.outputs.double().norm(dim=1))
    confirmed, denied = torch.zeros_like(same), ~same
    generator = torch.Generator().manual_seed(call.number)
    direction = torch.randn(call.images.shape, generator=generator, dtype=torch.float64).to(call.images)
    for step in _STEPS:
        asked = (same & ~confirmed).nonzero()[:, 0]
        if len(asked):
            x, v, g = call.images[asked], call.at_outputs[asked], call.at_images[asked]
            tells, agrees = _compare(model, x, v, g, step * direction[asked])
            confirmed[asked] = tells & agrees
            denied[asked] |= tells & ~agrees
    unharmed: Tensor = confirmed | ~denied
    return unharmed


def _compare(model: nn.Module, x: Tensor, v: Tensor, g: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
    """Compares gradients g at images x with differences between x + move and x - move.

    Returns bool (N,): whether the comparison is larger than what rounding can do, and whether both agree. The unit of
    all numbers is the change of v times the outputs.
    """
    inside = (x - move.abs() >= 0) & (x + move.abs() <= 1)
    right, left = x + move * inside, x - move * inside
    at_right, at_left = model(right).double(), model(left).double()
    taken = right.double() - left.double()  # few digits change the move itself
    measured = (v.double() * (at_right - at_left)).sum(1)
    promised = (g.double() * taken).flatten(1).sum(1)
    # For a random direction of n pixels, |g| |taken| / sqrt(n) is the usual size of g times taken.
    n_pixels = inside.flatten(1).sum(1).clamp(min=1)
    usual = (g.double() * inside).flatten(1).norm(dim=1) * taken.flatten(1).norm(dim=1) / n_pixels.sqrt()
    spread = at_right - at_right.mean(1, keepdim=True)
    rounding = _ROUNDINGS * torch.finfo(x.dtype).eps * (v.double() * spread).abs().sum(1)
    tells = rounding <= _TOLERANCE * torch.maximum(usual, measured.abs())
    return tells, (measured - promised).abs() <= _TOLERANCE * usual
