"""Whether the gradients that an attack follows are what they seem, checked while the attack runs.

`check_gradient` looks at some images before an attack. A model can be honest there, and lie at other images or at those
that an attack has already moved. It can also have a gradient that is a true derivative and leads nowhere. So some of
the gradients that attacks ask for are compared with what the outputs do, at the place and for the loss that the attack
itself has chosen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Norm
from creditflow.attacks.foreign import Beside
from creditflow.attacks.guards import QueryWatch
from creditflow.derivatives.subject import kept_randomness

#: Sizes of the moves of a pixel, in the order in which they are tried. Small moves cross few kinks of a network, and
#: large ones are rounded less.
_STEPS = (1e-5, 1e-4, 1e-6, 1e-3)

#: A difference confirms a gradient if they differ by at most this share of the gradient's norm.
_TOLERANCE = 0.25

#: The error of an output, in units of rounding: each output is the end of many sums.
_ROUNDINGS = 32

#: Outputs at the same images with and without a graph are the same if they differ by at most this share of their norm.
_SAME_OUTPUTS = 1e-2

#: Types of numbers with few digits.
_FEW_DIGITS = (torch.float16, torch.bfloat16)

#: A gradient ought to lead uphill for this share of epsilon.
_REACH = 1 / 8


@dataclass
class _Call:
    """One call of the model: its number in the batch, images, outputs, and the gradient (N, K) at the outputs."""

    number: int
    images: Tensor
    outputs: Tensor | None = None
    at_outputs: Tensor | None = None
    judged: bool = False

    def keep_at_outputs(self, gradient: Tensor) -> None:
        """Keeps the gradient at the outputs, until one at the images has followed from it."""
        if not self.judged:
            self.at_outputs = gradient.detach().clone()


@dataclass
class FollowedGradients:
    """Judges some gradients of each batch: the 1st, 4th, 16th, 64th ... that an attack asks for.

    Let g be the gradient at images x, which came from a gradient v at the outputs f(x), and let u be a random
    direction. The gradient is confirmed if g u is v (f(x + h u) - f(x - h u)) / 2h for one of the steps h, and if f(x)
    is the same without a graph. It misleads if a step of an eighth of epsilon along it does not raise v f above what a
    step against it gives.

    Attributes:
        counter: counts the attack's queries, to which these calls do not belong.
        norm: the attack's norm.
        epsilon: the largest size of the perturbation.
        unconfirmed: number of images whose gradient no step has confirmed, by the number of the gradient in its batch.
        misleading: number of images whose gradient misleads, likewise.
    """

    counter: QueryWatch
    norm: Norm
    epsilon: float
    unconfirmed: dict[int, int] = field(default_factory=dict)
    misleading: dict[int, int] = field(default_factory=dict)
    _n_calls: int = 0
    _open: _Call | None = None
    _busy: bool = False

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Judges gradients of a model in a block that attacks one batch."""
        watched = model.model if isinstance(model, Beside) else model
        before = watched.register_forward_pre_hook(self._before)
        after = watched.register_forward_hook(self._after)
        self._n_calls, self._open = 0, None
        try:
            yield
        finally:
            self._open = None
            before.remove()
            after.remove()

    def shares(self, n_images: int) -> dict[str, float]:
        """Returns the largest shares of the attacked images, over the gradients of one number, as a record has them."""
        counts = {"unconfirmed_gradients": self.unconfirmed, "misleading_gradients": self.misleading}
        return {name: max(by_number.values(), default=0) / n_images for name, by_number in counts.items()}

    def _before(self, model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        images = inputs[0]
        if self._busy or not (torch.is_grad_enabled() and images.requires_grad):
            return None
        self._n_calls += 1
        if self._n_calls not in {4**power for power in range(16)}:
            return None
        call = self._open = _Call(self._n_calls, images.detach().clone())
        # An attack may show the same images to several models. The gradient of the copy is that of this call alone.
        copy = images.clone()
        copy.register_hook(lambda gradient: self._judge(model, call, gradient.detach()))
        return (copy, *inputs[1:])

    def _after(self, model: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> None:
        call = self._open
        if not self._busy and call is not None and call.images.shape == inputs[0].shape and outputs.requires_grad:
            call.outputs = outputs.detach().clone()
            outputs.register_hook(call.keep_at_outputs)
            self._open = None

    def _judge(self, model: nn.Module, call: _Call, gradient: Tensor) -> None:
        """Judges the first gradient (N, C, H, W) at the images that follows from one at the outputs."""
        if call.judged or call.at_outputs is None:
            return
        call.judged = self._busy = True
        n_queries = self.counter.n_images
        try:
            with torch.no_grad(), kept_randomness(), _all_digits():
                unconfirmed = None if _is_coarse(call) else ~_confirmed(model, call, gradient)
                misleading = self._misleads(model, call, gradient)
        finally:
            self._busy, self.counter.n_images = False, n_queries
        for counts, found in ((self.unconfirmed, unconfirmed), (self.misleading, misleading)):
            if found is not None:
                counts[call.number] = counts.get(call.number, 0) + int(found.sum())

    def _misleads(self, model: nn.Module, call: _Call, gradient: Tensor) -> Tensor | None:
        """Returns bool (N,): whether a gradient that is not zero leads nowhere; None where the norm has no such step.

        What rounding can do counts for the gradient.
        """
        reach = _REACH * self.epsilon
        if self.norm == "l0" or reach == 0:
            return None
        size = gradient.flatten(1).double().norm(dim=1)
        direction = (
            gradient.sign()
            if self.norm == "linf"
            else gradient / size.clamp_min(1e-300).to(gradient)[:, None, None, None]
        )
        right, left = ((call.images + sign * reach * direction).clamp(0, 1) for sign in (1, -1))
        assert call.at_outputs is not None
        risen, rounding = _change(call.at_outputs, model(right), model(left))
        misled: Tensor = (size > 0) & (risen < -rounding)
        return misled


def _confirmed(model: nn.Module, call: _Call, gradient: Tensor) -> Tensor:
    """Returns bool (N,): whether differences confirm the gradient of a call at its images.

    Where no step can tell, because rounding is larger than what is compared, only a gradient of zero is confirmed.
    """
    assert call.outputs is not None and call.at_outputs is not None
    centre = model(call.images)
    gap = (centre.double() - call.outputs.double()).norm(dim=1)
    same = ~(gap > _SAME_OUTPUTS * call.outputs.double().norm(dim=1))
    confirmed, denied = torch.zeros_like(same), ~same
    generator = torch.Generator().manual_seed(call.number)
    direction = torch.randn(call.images.shape, generator=generator, dtype=torch.float64).to(call.images)
    for step in _STEPS:
        asked = (same & ~confirmed).nonzero()[:, 0]
        if len(asked):
            x, outputs, v, g = (of[asked] for of in (call.images, centre, call.at_outputs, gradient))
            tells, agrees = _compare(model, x, outputs, v, g, step * direction[asked])
            confirmed[asked] = tells & agrees
            denied[asked] |= tells & ~agrees
    harmless: Tensor = confirmed | ~(denied | (gradient != 0).flatten(1).any(1))
    return harmless


def _compare(model: nn.Module, x: Tensor, outputs: Tensor, v: Tensor, g: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
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
    tells = rounding <= _TOLERANCE * torch.maximum(usual, measured.abs())
    low, high = torch.minimum(*sides), torch.maximum(*sides)
    distance = torch.maximum(low - promised, promised - high)
    return tells, distance <= _TOLERANCE * usual


def _change(v: Tensor, right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Returns by how much v times the outputs is larger at the right than at the left (N,), and its rounding (N,).

    A class whose output never changes, as that of a class which a model has switched off, is no part of the rounding.
    """
    eps = torch.finfo(right.dtype).eps
    at_right, at_left, v = right.double(), left.double(), v.double()
    spread = (at_right - at_right.median(1, keepdim=True).values) * (at_right != at_left)
    return (v * (at_right - at_left)).sum(1), _ROUNDINGS * eps * (v * spread).abs().sum(1)


def _is_coarse(call: _Call) -> bool:
    """Returns whether outputs have so few digits that small differences of them say nothing."""
    assert call.outputs is not None
    return any(torch.equal(call.outputs.to(dtype).to(call.outputs), call.outputs) for dtype in _FEW_DIGITS)


@contextmanager
def _all_digits() -> Iterator[None]:
    """Lets an NVIDIA GPU multiply float32 with all digits in a block, where PyTorch's settings are the usual ones."""
    places: Sequence[Any] = (torch.backends.cuda.matmul, torch.backends.cudnn) if torch.cuda.is_initialized() else ()
    before = []
    for place in places:
        with suppress(RuntimeError):  # of a user who has set `fp32_precision`, which these settings cannot express
            before.append((place, place.allow_tf32))
            place.allow_tf32 = False
    try:
        yield
    finally:
        for place, value in before:
            place.allow_tf32 = value
