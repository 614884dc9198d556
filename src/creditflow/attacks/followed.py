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

#: The same for a gradient that was computed with few digits.
_COARSE_TOLERANCE = 0.6

#: The error of an output, in units of rounding: each output is the end of many sums.
_ROUNDINGS = 32

#: Outputs at the same images with and without a graph are the same if they differ by at most this share of their norm.
_SAME_OUTPUTS = 1e-2

#: Types of numbers with few digits.
_FEW_DIGITS = (torch.float16, torch.bfloat16)

#: Those of a model that computes with few digits, and of the same model in float64.
_SIMILAR_OUTPUTS = 0.1

#: Types of numbers with few digits.
_FEW_DIGITS = (torch.float16, torch.bfloat16)

#: A gradient ought to lead uphill for these shares of epsilon.
_REACHES = (1 / 8, 1 / 3)

#: It need not do so for a larger part of the range of pixels, over which ordinary networks bend.
_LONGEST = 0.04

#: Numbers of the gradients that are judged, in each run of an attack. The first one of all is judged, too.
_JUDGED = frozenset(3 * 4**power for power in range(16))


@dataclass
class _Call:
    """One call of the model: images, outputs, and the gradient (N, K) at the outputs.

    `place` is the run of the attack in its batch, and the number of the gradient in this run.
    """

    place: tuple[int, int]
    images: Tensor
    outputs: Tensor | None = None
    at_outputs: Tensor | None = None
    judged: bool = False

    def keep_at_outputs(self, gradient: Tensor) -> None:
        """Keeps the gradient at the outputs, until one at the images has followed from it."""
        if not self.judged:
            self.at_outputs = gradient.detach().clone()


@dataclass(frozen=True)
class _Followed:
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

    def double(self) -> "_Followed":
        """Returns the same in float64, for a model in float64."""
        limits = (_SIMILAR_OUTPUTS, _COARSE_TOLERANCE) if self.few_digits else (_SAME_OUTPUTS, _TOLERANCE)
        images, outputs = self.images.double(), self.outputs.double()
        return _Followed(images, outputs, self.at_outputs.double(), self.at_images.double(), *limits)


@dataclass
class FollowedGradients:
    """Judges some gradients of each batch: the first, and the 3rd, 12th, 48th ... of each run and each epsilon.

    Let g be the gradient at images x, which came from a gradient v at the outputs f(x), and let u be a random
    direction. The gradient is confirmed if g u is v (f(x + h u) - f(x - h u)) / 2h for one of the steps h, and if f(x)
    is the same without a graph. What float32 or fewer digits cannot confirm, the model in float64 may. The gradient
    misleads if a step of an eighth or a third of epsilon along it gives less v f than a step against it.

    Attributes:
        counter: counts the attack's queries, to which these calls do not belong.
        norm: the attack's norm.
        epsilon: the largest size of the perturbation.
        unconfirmed: number of images whose gradient was not confirmed, by run and number of the gradient.
        misleading: number of images whose gradient misleads, likewise.
    """

    counter: QueryWatch
    norm: Norm
    epsilon: float
    unconfirmed: dict[tuple[int, int], int] = field(default_factory=dict)
    misleading: dict[tuple[int, int], int] = field(default_factory=dict)
    _n_runs: int = 0
    _n_calls: int = 0
    _open: _Call | None = None
    _busy: bool = False

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Judges gradients of a model in a block that attacks one batch."""
        watched = model.model if isinstance(model, Beside) else model
        before = watched.register_forward_pre_hook(self._before)
        after = watched.register_forward_hook(self._after)
        self._n_runs, self._n_calls, self._open = 0, 0, None
        try:
            yield
        finally:
            self._open = None
            before.remove()
            after.remove()

    def begin(self) -> None:
        """Says that a run of the attack begins: at another epsilon, or another stage of a cascade."""
        self._n_runs, self._n_calls = self._n_runs + 1, 0

    def shares(self, n_images: int) -> dict[str, float]:
        """Returns the largest shares of the attacked images, over all places, by their names in a record."""
        counts = {"unconfirmed_gradients": self.unconfirmed, "misleading_gradients": self.misleading}
        return {name: max(by_place.values(), default=0) / n_images for name, by_place in counts.items()}

    def _before(self, model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        images = inputs[0]
        if self._busy or not (torch.is_grad_enabled() and images.requires_grad):
            return None
        self._n_calls += 1
        if self._n_calls not in _JUDGED and not (self._n_calls == 1 and self._n_runs <= 1):
            return None
        call = self._open = _Call((self._n_runs, self._n_calls), images.detach().clone())
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
        if call.judged or call.outputs is None or call.at_outputs is None:
            return
        call.judged = self._busy = True
        n_queries = self.counter.n_images
        followed = _Followed(call.images, call.outputs, call.at_outputs, gradient)
        try:
            with torch.no_grad(), kept_randomness(), _all_digits():
                confirmed, misled = self._judged(model, followed)
        finally:
            self._busy, self.counter.n_images = False, n_queries
        for counts, found in ((self.unconfirmed, ~confirmed), (self.misleading, misled)):
            counts[call.place] = counts.get(call.place, 0) + int(found.sum())

    def _judged(self, model: nn.Module, followed: _Followed) -> tuple[Tensor, Tensor]:
        """Returns bool (N,) each: whether the gradients of images are confirmed, and whether they mislead."""
        n_images, device = len(followed.images), followed.images.device
        nobody = torch.zeros(n_images, dtype=torch.bool, device=device)
        if followed.few_digits:
            confirmed, misled = nobody, nobody
        else:
            confirmed = _confirmed(model, followed, ~nobody)
            misled = self._misled(model, followed)
        types = _floating_types(model)
        if not bool(confirmed.all()) and len(types) == 1:
            precise = followed.double()
            with _type_at_the_end(model, types.pop()):
                if _computes_in_float64(model.to(torch.float64), precise.images):
                    confirmed = confirmed | _confirmed(model, precise, ~confirmed)
                    misled = self._misled(model, precise) if followed.few_digits else misled
        return confirmed, misled

    def _misled(self, model: nn.Module, followed: _Followed) -> Tensor:
        """Returns bool (N,): whether a gradient that is not zero leads nowhere, where the norm has steps along it.

        What rounding can do counts for the gradient.
        """
        gradient = followed.at_images
        size = gradient.flatten(1).norm(dim=1)
        length = size.clamp_min(torch.finfo(size.dtype).tiny)[:, None, None, None]
        direction = gradient.sign() if self.norm == "linf" else gradient / length
        misled = torch.zeros_like(size, dtype=torch.bool)
        for reach in _REACHES if self.norm != "l0" and self.epsilon > 0 else ():
            longest = _LONGEST if self.norm == "linf" else reach * self.epsilon
            step = min(reach * self.epsilon, longest) * direction
            right, left = ((followed.images + sign * step).clamp(0, 1) for sign in (1, -1))
            risen, rounding = _change(followed.at_outputs, model(right), model(left))
            misled |= (size > 0) & (risen < -rounding)
        return misled


def _confirmed(model: nn.Module, followed: _Followed, asked: Tensor) -> Tensor:
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


def _floating_types(model: nn.Module) -> set[torch.dtype]:
    tensors = (*model.parameters(), *model.buffers())
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


def _computes_in_float64(model: nn.Module, images: Tensor) -> bool:
    try:
        outputs: Tensor = model(images)
    except Exception:  # whatever somebody's model raises; its gradient then stays unconfirmed
        return False
    return outputs.dtype == torch.float64


@contextmanager
def _type_at_the_end(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Puts a model into a type at the end of a block."""
    try:
        yield
    finally:
        model.to(dtype)


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
