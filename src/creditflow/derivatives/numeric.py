"""Gradients against differences of the forward pass.

Along a direction u and with a step h there are two one-sided slopes: (f(x + h u) - f(x)) / h and
(f(x) - f(x - h u)) / h. A derivative lies between them. If they are close together and a gradient's slope g . u is
somewhere else, then the gradient is not the derivative. If they are far apart, then a kink, a jump or rounding lies
within the step, and this step proves nothing. The smallest step that proves something decides.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

#: Tensors at which a function is evaluated, or directions, or a gradient: one tensor for each input of the function.
Point = Sequence[Tensor]
#: Maps a point to the tensors that the function returns.
Function = Callable[[Point], Sequence[Tensor]]
#: Maps outputs at two points to the difference of a number that follows from them.
Difference = Callable[[Sequence[Tensor], Sequence[Tensor]], float]

#: One-sided slopes prove something if half their distance is at most this share of the larger of them.
_CLOSE = 0.1
#: A slope is zero if it is at most this share of what it could be.
_FLAT = 1e-6


@dataclass(frozen=True)
class Precision:
    """How finely a type of numbers tells a derivative from something else.

    Attributes:
        steps: steps of the differences, in units of the range of the inputs, the smallest first.
        tolerance: largest relative difference between a gradient's slope and the one-sided slopes.
    """

    steps: tuple[float, ...]
    tolerance: float


#: By type. The fewer digits a type has, the larger its steps have to be, and the more rounding is in a gradient itself.
PRECISIONS = {
    torch.float64: Precision((1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2), 1e-2),
    torch.float32: Precision((1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2), 3e-2),
    torch.float16: Precision((1e-2, 3e-2, 1e-1, 3e-1), 0.3),
    torch.bfloat16: Precision((1e-2, 3e-2, 1e-1, 3e-1), 0.3),
}


@dataclass(frozen=True)
class Slope:
    """The slopes of a function along one direction with one step, and what each gradient promises there."""

    step: float
    right: float
    left: float
    promised: tuple[float, ...]

    @property
    def central(self) -> float:
        """The central difference."""
        return (self.right + self.left) / 2

    @property
    def gap(self) -> float:
        """Half the distance of the one-sided slopes."""
        return abs(self.right - self.left) / 2


@dataclass(frozen=True)
class Judgement:
    """What the directions say of one gradient.

    Attributes:
        agreed: number of directions along which the gradient is the derivative.
        disagreed: number of directions along which it is not.
        error: median of the relative errors over both.
    """

    agreed: int
    disagreed: int
    error: float

    @property
    def honest(self) -> bool | None:
        """Whether the gradient is the derivative; None if no step of any direction proves anything."""
        return None if self.agreement is None else self.agreement > 0.5

    @property
    def agreement(self) -> float | None:
        """The share of directions along which the gradient is the derivative; None if nothing is proved."""
        number = self.agreed + self.disagreed
        return self.agreed / number if number else None


class Measured:
    """The slopes of one number that follows from a function's outputs, along all directions that were tried.

    Args:
        gradients: what is claimed to be the derivative of the number.
        scales: for each tensor of the point, the size of a step of one along a random direction.
        rounding: how much of the number rounding takes at the least.
    """

    def __init__(
        self, difference: Difference, gradients: Sequence[Point], scales: Sequence[float], rounding: float
    ) -> None:
        self.difference, self.gradients, self.rounding = difference, gradients, rounding
        #: The usual size of g . u for a random direction u, so that an accidental zero is no large relative error.
        self.usual = tuple(
            math.hypot(*(norm([part]) * scale for part, scale in zip(gradient, scales, strict=True)))
            for gradient in gradients
        )
        self.slopes: list[list[Slope]] = []

    def noise(self) -> float:
        """Rounding of the number: the median of f(x + h u) + f(x - h u) - 2 f(x) over directions, at the least step."""
        least = [slopes[0] for slopes in self.slopes if slopes]
        return max(self.rounding, median(2 * slope.gap * slope.step for slope in least) if least else 0.0)

    def decisive(self, direction: int) -> Slope | None:
        """Returns the slopes with the smallest step that proves something along a direction."""
        return next((slope for slope in self.slopes[direction] if self._proves(slope)), None)

    def judge(self, gradient: int, tolerance: float) -> Judgement:
        """Compares one of the gradients with the slopes."""
        decisive = [self.decisive(direction) for direction in range(len(self.slopes))]
        errors = [self._error(slope, gradient) for slope in decisive if slope is not None]
        agreed = sum(error <= tolerance for error in errors)
        return Judgement(agreed, len(errors) - agreed, median(errors) if errors else 0.0)

    def disagreement(self, gradient: int, tolerance: float) -> tuple[tuple[float, float], ...]:
        """Returns (step, share of directions along which a gradient is not the central difference), large steps first.

        The share falls with the step where the cause is a kink. It rises at small steps where the cause is rounding.
        """
        by_step: dict[float, list[bool]] = {}
        for slope in (slope for slopes in self.slopes for slope in slopes):
            size = max(abs(slope.central), abs(slope.promised[gradient]), self.usual[gradient])
            far = abs(slope.central - slope.promised[gradient]) > tolerance * size
            by_step.setdefault(slope.step, []).append(far)
        return tuple((step, sum(far) / len(far)) for step, far in sorted(by_step.items(), reverse=True))

    def flat(self) -> bool:
        """Returns whether the derivative is zero: the number does not change at all for small steps."""
        decisive = [self.decisive(direction) for direction in range(len(self.slopes))]
        zero = [self._is_zero(slope) for slope in decisive if slope is not None]
        if not zero:  # what is promised is smaller than rounding
            return not any(slope.right or slope.left for slopes in self.slopes for slope in slopes)
        return sum(zero) > len(zero) / 2

    def jumps(self) -> bool:
        """Returns whether the number changes along some direction with some step."""
        return any(abs(slope.central) * slope.step > 10 * self.rounding for slopes in self.slopes for slope in slopes)

    def _largest(self) -> float:
        return max((abs(slope.central) for slopes in self.slopes for slope in slopes), default=0.0)

    def _is_zero(self, slope: Slope) -> bool:
        return abs(slope.central) <= _FLAT * max(self._largest(), *self.usual, *map(abs, slope.promised))

    def _size(self, slope: Slope, gradient: int) -> float:
        return max(abs(slope.right), abs(slope.left), abs(slope.promised[gradient]), self.usual[gradient])

    def _proves(self, slope: Slope) -> bool:
        size = max(self._size(slope, gradient) for gradient in range(len(self.gradients)))
        if size == 0:
            return True
        return slope.gap <= _CLOSE * size and 1.5 * self.noise() / slope.step <= _CLOSE * size

    def _error(self, slope: Slope, gradient: int) -> float:
        promised, low, high = slope.promised[gradient], *sorted((slope.left, slope.right))
        distance = max(low - promised, promised - high, 0.0) - 1.5 * self.noise() / slope.step
        size = self._size(slope, gradient)
        if not torch.tensor([distance, size]).isfinite().all():
            return float("inf")
        return max(distance, 0.0) / size if size > 0 else 0.0


def measure(
    function: Function,
    point: Point,
    directions: Iterable[Point],
    measured: Sequence[Measured],
    steps: Sequence[float],
    in_full: int = 1,
) -> None:
    """Fills `measured` with slopes: along the first directions with all steps, else until one proves something.

    Args:
        function: is evaluated without a graph of autograd.
        point: where the slopes are taken.
        directions: one tensor for each tensor of the point.
        measured: numbers that follow from the outputs. Each evaluation serves all of them.
        steps: the smallest first.
        in_full: number of directions that are measured with all steps.
    """
    every = list(directions)
    centre = [output.clone() for output in function(point)]
    for number, direction in enumerate(every):
        for series in measured:
            series.slopes.append([])
        for step in steps if number < in_full else steps[:1]:
            _measure_step(function, point, centre, direction, step, measured)
    for number, direction in enumerate(every):
        for step in steps[1:] if number >= in_full else ():
            if all(series.decisive(number) for series in measured):
                break
            _measure_step(function, point, centre, direction, step, measured, number)


def _measure_step(
    function: Function,
    point: Point,
    centre: Sequence[Tensor],
    direction: Point,
    step: float,
    measured: Sequence[Measured],
    number: int = -1,
) -> None:
    right, left = ([x + sign * step * u for x, u in zip(point, direction, strict=True)] for sign in (1, -1))
    # Few digits change the step itself, so the promise is made for the points that were really taken.
    taken = [(high.double() - low.double()) / (2 * step) for high, low in zip(right, left, strict=True)]
    outputs_right = [output.clone() for output in function(right)]
    outputs_left = function(left)
    for series in measured:
        promised = tuple(dot(gradient, taken) for gradient in series.gradients)
        slope = Slope(
            step,
            series.difference(outputs_right, centre) / step,
            series.difference(centre, outputs_left) / step,
            promised,
        )
        series.slopes[number].append(slope)


def dot(a: Point, b: Point) -> float:
    """Returns the inner product of two points, summed in float64."""
    return float(sum((p.double() * q.double()).sum() for p, q in zip(a, b, strict=True)))


def norm(a: Point) -> float:
    """Returns the Euclidean norm of a point."""
    return math.sqrt(dot(a, a))


def cosine(a: Point, b: Point) -> float | None:
    """Returns the cosine of the angle between two points; None if one is zero or not finite."""
    lengths = norm(a) * norm(b)
    value = dot(a, b) / lengths if lengths > 0 else float("nan")
    return max(-1.0, min(1.0, value)) if value == value and lengths < float("inf") else None


def root_mean_square(tensor: Tensor) -> float:
    """Returns the root of the mean square of a tensor; 1 if that is zero, or if the tensor is empty."""
    value = float(tensor.double().square().mean().sqrt()) if tensor.numel() else 0.0
    return value if 0 < value < float("inf") else 1.0


def random_direction(point: Point, scales: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    """Returns Gaussian numbers for each tensor of a point, times its scale. They are drawn on the CPU."""
    return [
        torch.randn(x.shape, generator=generator, dtype=torch.float64).mul_(scale).to(x)
        for x, scale in zip(point, scales, strict=True)
    ]
